/* The add-on of the Node runtime, carried in the agent so that the initramfs needs no further file. */
  .section .rodata
  .global openssl_reseed_start
  .global openssl_reseed_end
  .balign 16
openssl_reseed_start:
  .incbin "build/openssl-reseed.node"
openssl_reseed_end:
  .section .note.GNU-stack,"",@progbits
