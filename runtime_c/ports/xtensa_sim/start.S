/*
 * From reset to xtensa_start, on QEMU's machine `sim` with the core lx106. It ignores the ELF file's entry: the core
 * starts at the first byte of .reset (sim.ld). call0 ABI, no windows.
 */
        .section .reset, "ax"
        .global bfd_reset
bfd_reset:
        j       1f
        .align  4
.Lstack:
        .word   bfd_stack_end
.Lstart:
        .word   xtensa_start
1:
        movi    a2, 15                  /* PS: no interrupts, exceptions allowed, no windows */
        wsr     a2, ps
        rsync
        l32r    a1, .Lstack
        l32r    a0, .Lstart
        jx      a0

/* Whatever exception it is, and however many of them the core has a vector for, one every 16 bytes. */
        .section .vectors, "ax"
        .align  16
        .rept   64
        j       2f
        .align  16
        .endr
.Lstack_for_fault:
        .word   bfd_stack_end
.Lfault:
        .word   xtensa_fault
2:
        movi    a2, 15
        wsr     a2, ps
        rsync
        rsr     a2, exccause            /* the first argument */
        l32r    a1, .Lstack_for_fault   /* the stack may be what has gone wrong */
        l32r    a0, .Lfault
        jx      a0
