/* A QEMU plugin (version 1 of its interface) that counts executed instructions between two markers of the program.
 *
 * `mov r8, r8` (RISC-V: `addi x0, x0, 1`) sets the counter to zero, `mov r9, r9` (`addi x0, x0, 2`) prints it on
 * stderr. The prototypes are those of qemu-plugin.h, which distributions leave out.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { NO_REGISTERS = 0, ADD = 0 };

extern void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, void (*)(uint64_t id, void *block));
extern void qemu_plugin_register_vcpu_insn_exec_cb(void *insn, void (*)(unsigned, void *), int flags, void *);
extern void qemu_plugin_register_vcpu_insn_exec_inline(void *insn, int op, void *counter, uint64_t by);
extern size_t qemu_plugin_tb_n_insns(const void *block);
extern void *qemu_plugin_tb_get_insn(const void *block, size_t index);
extern const void *qemu_plugin_insn_data(const void *insn);
extern size_t qemu_plugin_insn_size(const void *insn);

int qemu_plugin_version = 1;

static uint64_t count;
static uint32_t start_code = 0x46C0, end_code = 0x46C9;

static void start(unsigned cpu, void *unused)
{
    (void)cpu, (void)unused;
    count = 0;
}

static void end(unsigned cpu, void *unused)
{
    (void)cpu, (void)unused;
    fprintf(stderr, "instructions %" PRIu64 "\n", count);
}

static void translated(uint64_t id, void *block)
{
    (void)id;
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(block); ++i) {
        void *const insn = qemu_plugin_tb_get_insn(block, i);
        const size_t size = qemu_plugin_insn_size(insn);
        uint32_t code = 0;
        memcpy(&code, qemu_plugin_insn_data(insn), size < sizeof code ? size : sizeof code);
        if (code == start_code || code == end_code) {
            qemu_plugin_register_vcpu_insn_exec_cb(insn, code == start_code ? start : end, NO_REGISTERS, NULL);
        } else {
            qemu_plugin_register_vcpu_insn_exec_inline(insn, ADD, &count, 1);
        }
    }
}

int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv)
{
    const char *const target = *(const char *const *)info; /* target_name comes first */
    (void)argc, (void)argv;
    if (strncmp(target, "riscv", 5) == 0) {
        start_code = 0x00100013;
        end_code = 0x00200013;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    return 0;
}
