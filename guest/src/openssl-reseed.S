/* The add-on of the Node runtime, carried in the agent: no further file in the initramfs. */
  .section .rodata
  .global openssl_reseed_start
  .global openssl_reseed_end
  .balign 16
openssl_reseed_start:
  .incbin "build/openssl-reseed.node"
openssl_reseed_end:
  .section .note.GNU-stack,"",@progbits
