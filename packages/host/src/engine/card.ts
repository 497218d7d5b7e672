/** Of every guest's card as it is frozen; the agent gives it another one before it is up. */
export const frozenMac = "02:00:00:00:00:01";
