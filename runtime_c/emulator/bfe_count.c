/*
 * bfe_count.c - a plugin for QEMU that counts the instructions a guest program executes: exactly, and equally in every
 * run. They are instructions, not cycles: an emulator does not know how long one takes.
 *
 *     cc -std=c99 -O2 -shared -fPIC bfe_count.c -o bfe_count.so
 *     qemu-aarch64 -plugin ./bfe_count.so,out=FILE[,begin=ADDRESS,end=ADDRESS][,model=LOW:HIGH] program ...
 *
 *   out     file for the counts, one line each, JSON
 *   begin   guest addresses of bfd_mark_begin and bfd_mark_end (in Thumb code without bit 0). A region starts with the
 *   end     first instruction of the one and ends before the first instruction of the other.
 *   model   where the packed model lies, guest addresses; HIGH is the first behind it. With it, bytes are counted too.
 *   mapped  SYSCALL:BYTES, in place of model where a Linux program maps the file: the number of mmap there, and the
 *           file's size. The model lies where the last mapping of a file with this size was put.
 *
 * Each finished region is a line, in order, written when it ends, so that a QEMU that is killed loses none:
 *
 *     {"instructions":1234}
 *     {"instructions":1234,"model_bytes_loaded":64,"other_bytes_loaded":320,"bytes_stored":16}
 *
 * The last line, {"total":56789}, is all instructions of the run; there is none if QEMU is killed.
 *
 * A region that begins while one is open starts it anew; an end without a beginning does nothing. Arm's conditional
 * instructions count whether or not their condition holds. Bytes are those of the program's load and store
 * instructions; what a system call moves does not count, nor do stores that QEMU does in one go (aarch64's `dc zva`).
 *
 * The guest runs one thread. Plugin API 1 (QEMU 4.2 to 8) and 2 to 6 (QEMU 9 to 10); the same library is for all,
 * because it asks at its loading which functions there are.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* QEMU's side: the part of qemu-plugin.h that is used here. Distributions seldom install that file. */
struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_plugin_scoreboard;

typedef struct {
    struct qemu_plugin_scoreboard *score;
    size_t offset;
} qemu_plugin_u64;

enum { INLINE_ADD = 0, NO_REGISTERS = 0, LOADS_AND_STORES = 3 };

typedef void on_translate(uint64_t plugin, struct qemu_plugin_tb *block);
typedef void on_execute(unsigned processor, void *data);
typedef void on_access(unsigned processor, uint32_t info, uint64_t address, void *data);
typedef void on_exit(uint64_t plugin, void *data);
typedef void on_syscall(uint64_t plugin, unsigned processor, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3,
                        uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8);
typedef void on_syscall_return(uint64_t plugin, unsigned processor, int64_t number, int64_t result);

extern void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t, on_translate *);
extern void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, on_execute *, int, void *);
extern void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *, on_access *, int, int, void *);
extern void qemu_plugin_register_vcpu_syscall_cb(uint64_t, on_syscall *);
extern void qemu_plugin_register_vcpu_syscall_ret_cb(uint64_t, on_syscall_return *);
extern void qemu_plugin_register_atexit_cb(uint64_t, on_exit *, void *);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
extern unsigned qemu_plugin_mem_size_shift(uint32_t);
extern bool qemu_plugin_mem_is_store(uint32_t);

/* Either the first of these is there (API 1), or the others. */
#define MAYBE __attribute__((weak))
extern MAYBE void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *, int, void *, uint64_t);
extern MAYBE void qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(struct qemu_plugin_insn *, int, qemu_plugin_u64,
                                                                      uint64_t);
extern MAYBE struct qemu_plugin_scoreboard *qemu_plugin_scoreboard_new(size_t);
extern MAYBE uint64_t qemu_plugin_u64_sum(qemu_plugin_u64);

/* What QEMU looks for in this library. It reads the version after loading, when choose_version has run. */
#define EXPORTED __attribute__((visibility("default")))
EXPORTED int qemu_plugin_version = 1;
EXPORTED int qemu_plugin_install(uint64_t plugin, const void *info, int argc, char **argv);

__attribute__((constructor)) static void choose_version(void) {
    if (qemu_plugin_scoreboard_new != NULL)
        qemu_plugin_version = 2;
}

typedef struct range {
    uint64_t low, high;
} range;

static FILE *out;
static uint64_t counter;      /* API 1 */
static qemu_plugin_u64 count; /* API 2 and later; the score is NULL with API 1 */

static range marks; /* addresses of the begin and end marks */
static bool has_marks, in_region;
static uint64_t at_begin; /* instructions executed when the region began */

static bool counts_bytes;
static range model;
static range mapped; /* the number of mmap and the size of the file; no range of addresses */
static bool is_mapping;
static uint64_t model_loaded, other_loaded, stored; /* bytes, in this region */

static uint64_t executed(void) { return count.score != NULL ? qemu_plugin_u64_sum(count) : counter; }

static void begin_region(unsigned processor, void *data) {
    (void)processor, (void)data;
    in_region = true;
    model_loaded = other_loaded = stored = 0;
    at_begin = executed();
}

static void end_region(unsigned processor, void *data) {
    (void)processor, (void)data;
    if (!in_region)
        return;
    in_region = false;
    fprintf(out, "{\"instructions\":%" PRIu64, executed() - at_begin);
    if (counts_bytes) {
        fprintf(out, ",\"model_bytes_loaded\":%" PRIu64 ",\"other_bytes_loaded\":%" PRIu64 ",\"bytes_stored\":%" PRIu64,
                model_loaded, other_loaded, stored);
    }
    fprintf(out, "}\n");
    fflush(out);
}

/* Called for loads and stores alike: QEMU 7's filter for one of the two lets the wrong ones through. */
static void add_bytes(unsigned processor, uint32_t info, uint64_t address, void *data) {
    (void)processor, (void)data;
    if (!in_region)
        return;
    const uint64_t bytes = (uint64_t)1 << qemu_plugin_mem_size_shift(info);
    if (qemu_plugin_mem_is_store(info))
        stored += bytes;
    else if (address >= model.low && address < model.high)
        model_loaded += bytes;
    else
        other_loaded += bytes;
}

/* The marks are registered before the count, so that both see the number of instructions before their own. */
static void instrument(uint64_t plugin, struct qemu_plugin_tb *block) {
    (void)plugin;
    const size_t instructions = qemu_plugin_tb_n_insns(block);
    for (size_t i = 0; i < instructions; i++) {
        struct qemu_plugin_insn *const instruction = qemu_plugin_tb_get_insn(block, i);
        const uint64_t address = qemu_plugin_insn_vaddr(instruction);
        if (has_marks && address == marks.low)
            qemu_plugin_register_vcpu_insn_exec_cb(instruction, begin_region, NO_REGISTERS, NULL);
        if (has_marks && address == marks.high)
            qemu_plugin_register_vcpu_insn_exec_cb(instruction, end_region, NO_REGISTERS, NULL);
        if (count.score != NULL)
            qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(instruction, INLINE_ADD, count, 1);
        else
            qemu_plugin_register_vcpu_insn_exec_inline(instruction, INLINE_ADD, &counter, 1);
        if (counts_bytes)
            qemu_plugin_register_vcpu_mem_cb(instruction, add_bytes, NO_REGISTERS, LOADS_AND_STORES, NULL);
    }
}

/* Arguments of mmap: address, length, protection, flags, file, offset. The file is -1 where there is none. */
static void before_syscall(uint64_t plugin, unsigned processor, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3,
                           uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8) {
    (void)plugin, (void)processor, (void)a1, (void)a3, (void)a4, (void)a6, (void)a7, (void)a8;
    is_mapping = (uint64_t)number == mapped.low && a2 == mapped.high && (int32_t)a5 >= 0;
}

static void after_syscall(uint64_t plugin, unsigned processor, int64_t number, int64_t result) {
    (void)plugin, (void)processor, (void)number;
    const bool is_address = result < -4095 || result >= 0;
    if (is_mapping && is_address)
        model = (range){(uint64_t)result, (uint64_t)result + mapped.high};
    is_mapping = false;
}

static void write_total(uint64_t plugin, void *data) {
    (void)plugin, (void)data;
    fprintf(out, "{\"total\":%" PRIu64 "}\n", executed());
    fflush(out);
}

/* Two numbers, "123:0x456". */
static bool parse_pair(const char *text, range *pair) {
    char *rest;
    pair->low = strtoull(text, &rest, 0);
    if (rest == text || *rest != ':')
        return false;
    text = rest + 1;
    pair->high = strtoull(text, &rest, 0);
    return rest != text && *rest == '\0';
}

static bool parse_address(const char *text, uint64_t *address) {
    char *rest;
    *address = strtoull(text, &rest, 0);
    return rest != text && *rest == '\0';
}

/* One argument, "name=value". */
static bool parse_argument(const char *argument) {
    const char *const equals = strchr(argument, '=');
    if (equals == NULL)
        return false;
    const size_t length = (size_t)(equals - argument) + 1;
    const char *const value = equals + 1;
    if (strncmp(argument, "out=", length) == 0) {
        out = fopen(value, "w");
        return out != NULL;
    }
    if (strncmp(argument, "begin=", length) == 0)
        return has_marks = parse_address(value, &marks.low);
    if (strncmp(argument, "end=", length) == 0)
        return has_marks = parse_address(value, &marks.high);
    if (strncmp(argument, "model=", length) == 0)
        return counts_bytes = parse_pair(value, &model);
    if (strncmp(argument, "mapped=", length) == 0)
        return counts_bytes = parse_pair(value, &mapped);
    return false;
}

int qemu_plugin_install(uint64_t plugin, const void *info, int argc, char **argv) {
    (void)info;
    for (int i = 0; i < argc; i++) {
        if (!parse_argument(argv[i])) {
            fprintf(stderr, "bfe_count: bad argument or unwritable file: %s\n", argv[i]);
            return 1;
        }
    }
    if (out == NULL) {
        fprintf(stderr, "bfe_count: out=FILE is missing\n");
        return 1;
    }
    if (qemu_plugin_version >= 2)
        count.score = qemu_plugin_scoreboard_new(sizeof(uint64_t));
    qemu_plugin_register_vcpu_tb_trans_cb(plugin, instrument);
    qemu_plugin_register_atexit_cb(plugin, write_total, NULL);
    if (mapped.high != 0) {
        qemu_plugin_register_vcpu_syscall_cb(plugin, before_syscall);
        qemu_plugin_register_vcpu_syscall_ret_cb(plugin, after_syscall);
    }
    return 0;
}
