/* Permission to use the tile registers of AMX, which Linux gives to processes that ask for it. */
#ifndef QCC_AMX_H
#define QCC_AMX_H

#include <sys/syscall.h>

extern long syscall(long number, ...); /* unistd.h has it beyond C99 */

/* Asks once for the process and all its threads; 0 if the system refuses (Linux before 5.16, or a seccomp filter). */
static inline int qcc_amx_allowed(void)
{
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    static int allowed;
    if (!allowed) {
        allowed = syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
    }
    return allowed;
}

#endif
