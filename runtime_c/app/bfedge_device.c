/*
 * The device program, the same on every board: opens the packed model where it lies, and answers the host over a line
 * (PROTOCOL.md). What differs between boards is behind bfd_platform.h.
 */
#include "bfd_line.h"
#include "bfd_paint.h"
#include "bfd_platform.h"
#include "bfe_crc32.h"
#include "bfedge.h"

#include <string.h>

#ifndef BFD_BOARD
#define BFD_BOARD "unnamed"
#endif
#ifndef BFD_FLAGS
#define BFD_FLAGS "unknown"
#endif
#if defined(__clang__)
#define COMPILER __VERSION__ /* says "Clang" itself */
#elif defined(__GNUC__)
#define COMPILER "gcc " __VERSION__
#else
#define COMPILER "unknown"
#endif

#define GARBLED "the line's checksum is wrong, or there is more on it than there should be"

enum { GUARD_BYTES = 16, WORD_BYTES = 24 };

typedef struct device {
    bfe_model model;
    bfe_status status; /* of opening the model */
    bfe_diag diag;
    int has_file;
    uint64_t prepared;                /* bytes of rearranged weights */
    uint64_t open_stack, total_stack; /* bytes or BFD_UNKNOWN */
    int failed;                       /* something asked for was not done, or came out wrong */
} device;

/* Where things lie in the memory that the board gives. */
typedef struct memory {
    uint8_t *image, *workspace;
    float *logits;
    size_t workspace_size;
    uint64_t needed, available; /* bytes */
} memory;

static uint64_t aligned(uint64_t bytes) { return (bytes + BFE_ALIGNMENT - 1) / BFE_ALIGNMENT * BFE_ALIGNMENT; }

/* CRC-32 of values as little-endian binary32; the library runs on little-endian machines only. */
static uint32_t crc_of(const float *values, size_t count) {
    return bfe_crc32(0, (const uint8_t *)values, count * sizeof *values);
}

/* Bytes of stack between `from`, an address in the caller's frame, and the lowest that has lost its paint. */
static uint64_t stack_below(const void *from) {
    return bfd_stack_low() != bfd_stack_high() ? (uintptr_t)from - bfd_stack_depth() : BFD_UNKNOWN;
}

static void note_total_stack(device *d) {
    const uint64_t used = stack_below(bfd_stack_high());
    d->total_stack = used > d->total_stack ? used : d->total_stack;
}

static void open_model(device *d) {
    size_t size = 0;
    const void *const file = bfd_model_file(&size);
    const uint8_t here = 0;
    memset(d, 0, sizeof *d);
    d->has_file = file != NULL;
    bfd_paint_stack();
    d->status = file != NULL ? bfe_open(&d->model, file, size, &d->diag) : BFE_NOT_A_MODEL;
    d->open_stack = stack_below(&here);
    note_total_stack(d);
    if (d->status == BFE_OK)
        d->prepared = bfd_prepare(&d->model);
}

static bfe_options options_of(uint32_t tile) {
    bfe_options options = {0};
    options.tile_tokens = tile;
    bfd_divide(&options);
    return options;
}

/* Memory for a run with this tile, image and logits included; 0 if there is no model or too little memory. */
static int place(const device *d, uint32_t tile, memory *m) {
    if (d->status != BFE_OK)
        return 0;
    const bfe_options options = options_of(tile);
    const uint64_t image = aligned(bfe_input_size(&d->model));
    const uint64_t logits = aligned(d->model.config.classes * (uint64_t)sizeof(float));
    m->workspace_size = bfe_workspace_size(&d->model, &options);
    m->needed = image + logits + m->workspace_size + GUARD_BYTES;
    m->available = BFD_UNKNOWN;
    m->image = m->workspace_size != 0 && m->needed <= SIZE_MAX ? bfd_memory((size_t)m->needed, &m->available) : NULL;
    if (m->image == NULL)
        return 0;
    m->logits = (float *)(void *)(m->image + image);
    m->workspace = m->image + image + logits;
    return 1;
}

/* Why `place` has returned 0. */
static void answer_not_placed(const device *d, uint32_t id, const memory *m) {
    if (d->status != BFE_OK) {
        bfd_error(id, "no-model", d->has_file ? bfe_status_text(d->status) : "there is no model on this board");
        return;
    }
    bfd_answer answer = bfd_begin(id, "error");
    bfd_put_text(&answer, "code", "memory");
    bfd_put_text(&answer, "message", "too little memory for this model and tile");
    bfd_put_number(&answer, "needed", m->needed);
    bfd_put_number(&answer, "available", m->available);
    bfd_end(&answer);
}

/* Ticks between two readings. */
static uint64_t elapsed(uint64_t from, uint64_t to) {
    return from == BFD_UNKNOWN || to == BFD_UNKNOWN ? BFD_UNKNOWN : to - from;
}

/* bfe_run, timed; the arguments were checked, so a failure is a bug. */
static int run(const device *d, uint32_t id, const bfe_options *options, const memory *m, const uint8_t *image,
               uint64_t *ticks) {
    const uint64_t start = bfd_ticks();
    const bfe_status status = bfe_run(&d->model, options, m->workspace, m->workspace_size, image, m->logits);
    *ticks = elapsed(start, bfd_ticks());
    if (status != BFE_OK)
        bfd_error(id, "internal", bfe_status_text(status));
    return status == BFE_OK;
}

static uint32_t count_differing(const float *got, const float *expected, uint32_t count, uint64_t *first) {
    uint32_t differing = 0;
    *first = BFD_UNKNOWN;
    for (uint32_t i = count; i-- > 0;) {
        if (memcmp(got + i, expected + i, sizeof *got) != 0) {
            differing++;
            *first = i;
        }
    }
    return differing;
}

static void answer_hello(const device *d, uint32_t id) {
    const uint32_t patch = BFE_VERSION_PATCH;
    bfd_answer answer = bfd_begin(id, "hello");
    bfd_put_version(&answer, "runtime", BFE_VERSION_MAJOR, BFE_VERSION_MINOR, &patch);
    bfd_put_version(&answer, "format", BFE_FORMAT_MAJOR, BFE_FORMAT_MINOR, NULL);
    bfd_put_text(&answer, "board", BFD_BOARD);
    bfd_put_text(&answer, "cpu", bfd_cpu());
    bfd_put_text(&answer, "compiler", COMPILER);
    bfd_put_text(&answer, "flags", BFD_FLAGS);
    if (bfd_ticks() == BFD_UNKNOWN) {
        bfd_put_null(&answer, "clock");
    } else {
        bfd_open_object(&answer, "clock");
        bfd_put_text(&answer, "unit", bfd_tick_unit());
        bfd_put_number(&answer, "hz", bfd_ticks_per_second());
        bfd_close_object(&answer);
    }
    if (d->status == BFE_OK) {
        uint32_t crc;
        memcpy(&crc, d->model.file + 20, sizeof crc); /* FORMAT.md: where the header has it */
        bfd_open_object(&answer, "model");
        bfd_put_number(&answer, "bytes", d->model.file_bytes);
        bfd_put_hex(&answer, "crc32", crc);
        bfd_put_number(&answer, "golden", d->model.golden_count);
        bfd_put_number(&answer, "tokens", d->model.config.tokens);
        bfd_put_number(&answer, "classes", d->model.config.classes);
        bfd_put_number(&answer, "input", bfe_input_size(&d->model));
        bfd_close_object(&answer);
    } else {
        bfd_put_null(&answer, "model");
    }
    if (d->status != BFE_OK && d->has_file) {
        bfd_open_object(&answer, "refused");
        bfd_put_text(&answer, "status", bfe_status_text(d->status));
        bfd_put_number(&answer, "rule", d->diag.rule);
        bfd_put_number(&answer, "offset", d->diag.offset);
        bfd_close_object(&answer);
    } else {
        bfd_put_null(&answer, "refused");
    }
    const bfe_options options = options_of(0);
    bfd_put_text(&answer, "kernels", bfe_kernels_used(&d->model));
    bfd_put_number(&answer, "prepared", d->prepared);
    bfd_put_number(&answer, "workers", options.workers != 0 ? options.workers : 1);
    uint64_t available = BFD_UNKNOWN;
    (void)bfd_memory(0, &available);
    bfd_open_object(&answer, "memory");
    bfd_put_text(&answer, "kind", bfd_memory_kind());
    bfd_put_number(&answer, "available", available);
    bfd_put_number(&answer, "free", bfd_free_memory());
    bfd_close_object(&answer);
    bfd_open_object(&answer, "stack");
    const uint64_t stack = (uint64_t)(bfd_stack_high() - bfd_stack_low());
    bfd_put_number(&answer, "bytes", stack != 0 ? stack : BFD_UNKNOWN);
    bfd_close_object(&answer);
    bfd_end(&answer);
}

/* A finished inference; `expected` is NULL for an image from the host. Returns the number of differing logits. */
static uint32_t answer_result(const device *d, uint32_t id, uint64_t index, uint32_t tile, const float *logits,
                              const float *expected, uint64_t ticks) {
    const uint32_t classes = d->model.config.classes;
    uint64_t first = BFD_UNKNOWN;
    const uint32_t differing = expected != NULL ? count_differing(logits, expected, classes, &first) : 0;
    bfd_answer answer = bfd_begin(id, "result");
    bfd_put_number(&answer, "case", index);
    bfd_put_number(&answer, "tile", tile);
    bfd_put_number(&answer, "differing", expected != NULL ? differing : BFD_UNKNOWN);
    bfd_put_number(&answer, "first", first);
    bfd_put_hex(&answer, "crc32", crc_of(logits, classes));
    bfd_put_number(&answer, "ticks", ticks);
    if (expected == NULL || differing != 0)
        bfd_put_floats(&answer, "logits", logits, classes);
    else
        bfd_put_null(&answer, "logits");
    bfd_end(&answer);
    return differing;
}

static int do_golden(device *d, uint32_t id, uint32_t index, uint32_t tile) {
    memory m;
    const uint8_t *input = NULL;
    const float *expected = NULL;
    uint64_t ticks;
    const bfe_options options = options_of(tile);
    if (!place(d, tile, &m))
        return answer_not_placed(d, id, &m), 0;
    if (bfe_golden(&d->model, index, &input, &expected) != BFE_OK)
        return bfd_error(id, "bad-argument", "there is no such golden case"), 0;
    return run(d, id, &options, &m, input, &ticks) && answer_result(d, id, index, tile, m.logits, expected, ticks) == 0;
}

/* What a profiled run needs between its stages. */
typedef struct profiled {
    uint32_t id;
    uint64_t start;
} profiled;

#if defined(__clang__) || defined(__GNUC__)
#define NOT_INLINED __attribute__((noinline))
#else
#define NOT_INLINED
#endif

static volatile uint8_t mark; /* keeps compilers from dropping the calls */
NOT_INLINED void bfd_mark_begin(void) { mark = 1; }
NOT_INLINED void bfd_mark_end(void) { mark = 0; }

static void on_stage(void *context, const bfe_event *event) {
    static const char *const names[] = {"embed", "attention", "experts", "logits"};
    bfd_mark_end();
    const uint64_t now = bfd_ticks();
    profiled *const p = context;
    bfd_answer answer = bfd_begin(p->id, "stage");
    bfd_put_text(&answer, "stage", names[event->stage]);
    bfd_put_number(&answer, "block", event->block == BFE_NO_BLOCK ? BFD_UNKNOWN : event->block);
    bfd_put_number(&answer, "ticks", elapsed(p->start, now));
    bfd_put_number(&answer, "model_bytes", event->model_bytes);
    bfd_put_hex(&answer, "crc32", crc_of(event->values, event->count));
    bfd_end(&answer);
    p->start = bfd_ticks();
    bfd_mark_begin();
}

/* Runs once without tracing on memory of this colour; adds up what is found. */
static int run_painted(device *d, const profiled *p, const bfe_options *options, const memory *m, const uint8_t *input,
                       uint8_t colour, size_t *used, int *intact, uint64_t *stack, uint64_t *ticks) {
    const size_t size = m->workspace_size;
    const uint8_t here = 0;
    note_total_stack(d);
    bfd_paint(m->workspace, size + GUARD_BYTES, colour);
    bfd_paint_stack();
    const int ok = run(d, p->id, options, m, input, ticks);
    const uint64_t below = stack_below(&here);
    note_total_stack(d);
    const size_t touched = bfd_unpainted(m->workspace, size, colour);
    *used = touched > *used ? touched : *used;
    *intact = *intact && bfd_unpainted(m->workspace + size, GUARD_BYTES, colour) == 0;
    *stack = below;
    return ok;
}

static int do_profile(device *d, uint32_t id, uint32_t index, uint32_t tile) {
    memory m;
    const uint8_t *input = NULL;
    const float *expected = NULL;
    profiled p = {id, 0};
    const bfe_options plain = options_of(tile);
    bfe_options traced = plain;
    uint64_t ticks = BFD_UNKNOWN, ignored, first;
    size_t used = 0;
    int intact = 1;
    uint64_t stack = BFD_UNKNOWN;
    if (!place(d, tile, &m))
        return answer_not_placed(d, id, &m), 0;
    if (bfe_golden(&d->model, index, &input, &expected) != BFE_OK)
        return bfd_error(id, "bad-argument", "there is no such golden case"), 0;
    /* Twice, in two colours: a byte that is written in the one colour is not in the other. The stack is the second
       run's: during the first one a dynamic linker may look up memcpy on it. */
    if (!run_painted(d, &p, &plain, &m, input, 0xA5, &used, &intact, &stack, &ignored) ||
        !run_painted(d, &p, &plain, &m, input, 0x5A, &used, &intact, &stack, &ticks))
        return 0;
    traced.trace = on_stage;
    traced.trace_context = &p;
    p.start = bfd_ticks();
    bfd_mark_begin();
    if (!run(d, id, &traced, &m, input, &ignored))
        return 0;
    bfd_mark_end();

    const uint32_t classes = d->model.config.classes;
    const uint32_t differing = count_differing(m.logits, expected, classes, &first);
    bfd_answer answer = bfd_begin(id, "profile");
    bfd_put_number(&answer, "case", index);
    bfd_put_number(&answer, "tile", tile);
    bfd_put_number(&answer, "differing", differing);
    bfd_put_hex(&answer, "crc32", crc_of(m.logits, classes));
    bfd_put_number(&answer, "ticks", ticks);
    bfd_open_object(&answer, "workspace");
    bfd_put_number(&answer, "stated", m.workspace_size);
    bfd_put_number(&answer, "used", aligned(used));
    bfd_put_bool(&answer, "intact", intact);
    bfd_close_object(&answer);
    bfd_open_object(&answer, "stack");
    bfd_put_number(&answer, "run", stack);
    bfd_put_number(&answer, "open", d->open_stack);
    bfd_put_number(&answer, "total", d->total_stack);
    bfd_close_object(&answer);
    bfd_open_object(&answer, "memory");
    bfd_put_number(&answer, "free", bfd_free_memory());
    bfd_close_object(&answer);
    bfd_end(&answer);
    return differing == 0 && intact;
}

static int do_image(device *d, bfd_command *command, uint32_t id) {
    char word[WORD_BYTES];
    memory m;
    uint32_t tile;
    uint64_t ticks;
    const int has_tile = bfd_word(command, word, sizeof word) < sizeof word && bfd_number(word, &tile);
    const int is_placed = has_tile && place(d, tile, &m);
    /* Whatever is wrong, the line is read to its end first: its checksum says whether to believe any of it. */
    const size_t size = is_placed ? bfe_input_size(&d->model) : 0;
    const size_t given = bfd_hex_word(command, is_placed ? m.image : NULL, size);
    if (!bfd_line_end(command))
        return bfd_error(id, "garbled", GARBLED), 0;
    if (!has_tile)
        return bfd_error(id, "bad-argument", "image needs a tile and the pixels in hexadecimal"), 0;
    if (!is_placed)
        return answer_not_placed(d, id, &m), 0;
    const bfe_options options = options_of(tile);
    if (given != size)
        return bfd_error(id, "bad-argument", "the pixels are not hexadecimal, or not of the model's input size"), 0;
    if (!run(d, id, &options, &m, m.image, &ticks))
        return 0;
    (void)answer_result(d, id, BFD_UNKNOWN, tile, m.logits, NULL, ticks);
    return 1;
}

/* `golden` and `profile`: a case and a tile. */
static int do_case(device *d, bfd_command *command, uint32_t id, int is_profile) {
    char word[WORD_BYTES];
    uint32_t numbers[2];
    int good = 1;
    for (int i = 0; i < 2; i++)
        good = bfd_word(command, word, sizeof word) < sizeof word && bfd_number(word, &numbers[i]) && good;
    if (!bfd_line_end(command))
        return bfd_error(id, "garbled", GARBLED), 0;
    if (!good)
        return bfd_error(id, "bad-argument", "this needs two numbers: a golden case and a tile"), 0;
    return is_profile ? do_profile(d, id, numbers[0], numbers[1]) : do_golden(d, id, numbers[0], numbers[1]);
}

/* Reads and answers one line; 1 if it was `quit`. */
static int do_line(device *d, bfd_command *command) {
    char word[WORD_BYTES];
    uint32_t id = 0;
    const size_t length = bfd_word(command, word, sizeof word);
    if (length == 0 && bfd_line_end(command))
        return 0;
    int done = length < sizeof word && bfd_number(word, &id) && id != 0;
    if (!done) {
        (void)bfd_line_end(command);
        d->failed = 1;
        return bfd_error(0, "garbled", "a line starts with a number from 1 to 4294967295"), 0;
    }
    (void)bfd_word(command, word, sizeof word);
    int quit = 0;
    if (strcmp(word, "image") == 0) {
        done = do_image(d, command, id);
    } else if (strcmp(word, "golden") == 0 || strcmp(word, "profile") == 0) {
        done = do_case(d, command, id, word[0] == 'p');
    } else if (!bfd_line_end(command)) {
        done = 0;
        bfd_error(id, "garbled", GARBLED);
    } else if (strcmp(word, "hello") == 0) {
        answer_hello(d, id);
    } else if (strcmp(word, "quit") == 0) {
        bfd_answer answer = bfd_begin(id, "bye");
        bfd_end(&answer);
        quit = 1;
    } else {
        done = 0;
        bfd_error(id, "unknown-command", "the commands are hello, golden, image, profile and quit");
    }
    d->failed |= !done;
    return quit;
}

int bfd_serve(void) {
    static device d; /* not on the stack, which is measured */
    bfd_command command;
    open_model(&d);
    bfd_answer ready = bfd_begin(0, "ready");
    bfd_end(&ready);
    do {
        bfd_line_begin(&command);
        if (do_line(&d, &command))
            break;
    } while (!command.no_more);
    return d.failed;
}
