/*
 * A guest that needs no Linux, for a real Firecracker: it writes a number to the first sector of
 * its scratch disk, waits until that is done, and takes the next number. What it has asked for and
 * what is done is in its RAM, so whoever has both can tell whether they are of one instant.
 *
 * Device and queue are those of virtio 1.2, 4.2.2 (MMIO) and 2.7 (split queues). Firecracker starts
 * it in 64-bit mode with the first GiB mapped one to one, by the table at PDPT.
 */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

/* test/helpers/tiny-guest.ts knows where it is. */
#define PROGRESS 0x180000UL
/* Of Firecracker's page tables. */
#define PDPT 0xa000UL
#define DEVICES 0xc0000000UL
#define DEVICES_MAX 16
#define DEVICE_BYTES 0x1000UL
#define COM1 0x3f8

enum { MAGIC = 0x000, DEVICE_ID = 0x008, FEATURES = 0x010, DRIVER_FEATURES = 0x020,
       DRIVER_FEATURES_SEL = 0x024, QUEUE_NUM = 0x038, QUEUE_READY = 0x044, QUEUE_NOTIFY = 0x050,
       STATUS = 0x070, QUEUE_DESC = 0x080, QUEUE_DRIVER = 0x090, QUEUE_DEVICE = 0x0a0 };
enum { BLOCK = 2, READ_ONLY = 1 << 5, VERSION_1 = 1 };
enum { ACKNOWLEDGE = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8 };
enum { NEXT = 1, WRITE = 2, OUT = 1, QUEUE = 4 };

struct progress { volatile u64 asked, done; };
struct desc { u64 addr; u32 len; u16 flags, next; };
static struct desc descs[QUEUE] __attribute__((aligned(16)));
static volatile struct { u16 flags, idx, ring[QUEUE], event; } avail __attribute__((aligned(2)));
static volatile struct { u16 flags, idx; struct { u32 id, len; } ring[QUEUE]; u16 event; } used
    __attribute__((aligned(4)));
static struct { u32 type, reserved; u64 sector; } head;
static u64 sector[64];
static u8 result;
static u64 device_pages[512] __attribute__((aligned(4096)));

static void say(const char *text) {
  for (; *text; text++) __asm__ volatile("outb %b0, %w1" : : "a"(*text), "Nd"(COM1));
}

static volatile u32 *reg(u64 base, u32 offset) { return (volatile u32 *)(base + offset); }

/* The fourth GiB, where the devices are: the first 2 MiB of it, in one page. */
static void map_devices(void) {
  device_pages[0] = DEVICES | 0x83; /* present, writable, large */
  ((volatile u64 *)PDPT)[3] = (u64)device_pages | 3;
  __asm__ volatile("mov %%cr3, %%rax; mov %%rax, %%cr3" : : : "rax", "memory");
}

static u64 find_disk(void) {
  for (u64 i = 0; i < DEVICES_MAX; i++) {
    u64 base = DEVICES + i * DEVICE_BYTES;
    if (*reg(base, MAGIC) != 0x74726976 || *reg(base, DEVICE_ID) != BLOCK) continue;
    if (!(*reg(base, FEATURES) & READ_ONLY)) return base;
  }
  return 0;
}

static void set_address(u64 base, u32 offset, const volatile void *at) {
  *reg(base, offset) = (u32)(u64)at;
  *reg(base, offset + 4) = (u32)((u64)at >> 32);
}

static void start_disk(u64 base) {
  *reg(base, STATUS) = ACKNOWLEDGE;
  *reg(base, STATUS) = ACKNOWLEDGE | DRIVER;
  *reg(base, DRIVER_FEATURES_SEL) = 1;
  *reg(base, DRIVER_FEATURES) = VERSION_1;
  *reg(base, DRIVER_FEATURES_SEL) = 0;
  *reg(base, DRIVER_FEATURES) = 0;
  *reg(base, STATUS) = ACKNOWLEDGE | DRIVER | FEATURES_OK;
  *reg(base, QUEUE_NUM) = QUEUE;
  set_address(base, QUEUE_DESC, descs);
  set_address(base, QUEUE_DRIVER, &avail);
  set_address(base, QUEUE_DEVICE, &used);
  *reg(base, QUEUE_READY) = 1;
  *reg(base, STATUS) = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;
}

static void describe_write(void) {
  head.type = OUT;
  descs[0] = (struct desc){(u64)&head, sizeof head, NEXT, 1};
  descs[1] = (struct desc){(u64)sector, sizeof sector, NEXT, 2};
  descs[2] = (struct desc){(u64)&result, 1, WRITE, 0};
}

static void run(u64 base) {
  struct progress *progress = (struct progress *)PROGRESS;
  for (;;) {
    u16 before = used.idx;
    sector[0] = progress->done + 1;
    progress->asked = sector[0];
    avail.ring[avail.idx % QUEUE] = 0;
    __asm__ volatile("mfence" : : : "memory");
    avail.idx++;
    __asm__ volatile("mfence" : : : "memory");
    *reg(base, QUEUE_NOTIFY) = 0;
    while (used.idx == before) __asm__ volatile("pause" : : : "memory");
    if (result == 0) progress->done = sector[0];
  }
}

void _start(void) {
  map_devices();
  u64 base = find_disk();
  say(base ? "forkd-disk runs\n" : "forkd-disk finds none\n");
  if (base) {
    start_disk(base);
    describe_write();
    run(base);
  }
  for (;;) __asm__ volatile("pause");
}
