/* A QEMU user-mode plugin (plugin API 1) that counts the instructions an ARM guest executes between two marks.
 *
 * The guest marks with hints that no processor acts on: `hint #126` starts a count, `hint #127` ends it and prints
 * "count N" to the file of the argument out=FILE (stderr without one). With mix=on each line goes on with the executed
 * mnemonics, most frequent first. The marks themselves are not counted.
 *
 * Debian ships no qemu-plugin.h; these declarations are the part of its interface that is used here. */
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum { ADD_U64 = 0, NO_REGISTERS = 0 };
extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct qemu_plugin_tb *));
extern void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, void (*)(unsigned, void *), int, void *);
extern void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *, int, void *, uint64_t);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
extern char *qemu_plugin_insn_disas(const struct qemu_plugin_insn *);

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

enum { START = 0xd503201fu | 126u << 5, END = 0xd503201fu | 127u << 5, START_32 = 0xe320f07eu, END_32, KINDS = 512 };

static FILE *out;
static bool mix;
static uint64_t executed;
static struct { char name[16]; uint64_t count; } kinds[KINDS];
static int known;

static uint64_t *counter_of(struct qemu_plugin_insn *instruction)
{
    char name[16] = "", *text = qemu_plugin_insn_disas(instruction);
    if (text) {
        sscanf(text, "%15s", name);
        free(text);
    }
    int i = 0;
    while (i < known && strcmp(kinds[i].name, name)) {
        ++i;
    }
    if (i == known && known < KINDS - 1) {
        strcpy(kinds[known++].name, name);
    }
    return &kinds[i].count;
}

static int more_frequent(const void *a, const void *b)
{
    const uint64_t x = kinds[*(const int *)a].count, y = kinds[*(const int *)b].count;
    return (x < y) - (x > y);
}

static void start(unsigned cpu, void *unused)
{
    (void)cpu, (void)unused;
    executed = 0;
    for (int i = 0; i < KINDS; ++i) {
        kinds[i].count = 0;
    }
}

static void end(unsigned cpu, void *unused)
{
    (void)cpu, (void)unused;
    fprintf(out, "count %" PRIu64, executed);
    if (mix) {
        int order[KINDS];
        for (int i = 0; i < known; ++i) {
            order[i] = i;
        }
        qsort(order, (size_t)known, sizeof order[0], more_frequent);
        for (int i = 0; i < known && kinds[order[i]].count; ++i) {
            fprintf(out, " %s:%" PRIu64, kinds[order[i]].name, kinds[order[i]].count);
        }
    }
    fputc('\n', out);
    fflush(out);
}

static void translate(plugin_id id, struct qemu_plugin_tb *block)
{
    (void)id;
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(block); ++i) {
        struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(block, i);
        uint32_t code;
        memcpy(&code, qemu_plugin_insn_data(instruction), sizeof code);
        const bool starts = code == START || code == START_32;
        if (starts || code == END || code == END_32) {
            qemu_plugin_register_vcpu_insn_exec_cb(instruction, starts ? start : end, NO_REGISTERS, NULL);
            continue;
        }
        qemu_plugin_register_vcpu_insn_exec_inline(instruction, ADD_U64, &executed, 1);
        if (mix) {
            qemu_plugin_register_vcpu_insn_exec_inline(instruction, ADD_U64, counter_of(instruction), 1);
        }
    }
}

__attribute__((visibility("default"))) int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv)
{
    (void)info;
    out = stderr;
    for (int i = 0; i < argc; ++i) {
        if (!strncmp(argv[i], "out=", 4)) {
            out = fopen(argv[i] + 4, "w");
        } else if (!strcmp(argv[i], "mix=on")) {
            mix = true;
        }
    }
    if (!out) {
        return -1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
    return 0;
}
