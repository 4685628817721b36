/*
 * bfedge-device for Linux and other POSIX systems: the line is stdin and stdout, the model a file that is mapped and
 * used in place.
 *
 *     bfedge-device model.bfe                       answers commands from stdin
 *     bfedge-device model.bfe "1 golden 0 0" ...    answers these instead, and ends with status 1 if one failed
 *
 * Options, before the model:
 *     --kernels NAME    not the fastest ones of this processor but these (bfedge.h names them)
 *     --threads N       divides the work, 1 by default
 */
#if !defined(_POSIX_C_SOURCE)
#define _POSIX_C_SOURCE 200809L
#endif

#include "bfd_line.h"
#include "bfd_platform.h"
#include "bfd_processor.h"
#include "bfe_pool.h"
#include "bfedge.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { STACK_BYTES = 256 * 1024 };

static const void *model_file;
static size_t model_bytes;
static char **arguments; /* commands still to be read, NULL if they come from stdin */

static const char *kernels; /* NULL: the fastest */
static uint32_t threads = 1;
static bfe_pool *pool; /* NULL for one thread */

static uint8_t *stack; /* of the thread that serves: its own memory, so that it can be painted */

static char output[4096];
static size_t output_length;

/* The host is gone when nobody reads any more: nothing is left to do. */
void bfd_flush(void) {
    for (size_t sent = 0; sent < output_length;) {
        const ssize_t now = write(STDOUT_FILENO, output + sent, output_length - sent);
        if (now < 0 && errno != EINTR)
            _exit(1);
        sent += now > 0 ? (size_t)now : 0;
    }
    output_length = 0;
}

void bfd_write(const char *text, size_t length) {
    for (size_t i = 0; i < length; i++) {
        if (output_length == sizeof output)
            bfd_flush();
        output[output_length++] = text[i];
    }
}

static int read_argument(void) {
    if (*arguments == NULL)
        return -1;
    if (**arguments == '\0')
        return arguments++, '\n';
    return (unsigned char)*(*arguments)++;
}

int bfd_read(void) {
    static uint8_t input[4096];
    static size_t at, end;
    if (arguments != NULL)
        return read_argument();
    while (at == end) {
        const ssize_t got = read(STDIN_FILENO, input, sizeof input);
        if (got == 0 || (got < 0 && errno != EINTR))
            return -1;
        at = 0;
        end = got > 0 ? (size_t)got : 0;
    }
    return input[at++];
}

uint64_t bfd_ticks(void) {
    struct timespec now;
    if (clock_gettime(CLOCK_MONOTONIC, &now) != 0)
        return BFD_UNKNOWN;
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t bfd_ticks_per_second(void) { return 1000000000u; }

const char *bfd_tick_unit(void) { return "ns"; }

const char *bfd_cpu(void) { return bfd_processor_name(); }

const void *bfd_model_file(size_t *size) {
    *size = model_bytes;
    return model_file;
}

void *bfd_memory(size_t bytes, uint64_t *available) {
    static void *memory;
    static size_t size;
    *available = BFD_UNKNOWN; /* the system decides when the pages are touched */
    if (bytes > size) {
        free(memory);
        size = posix_memalign(&memory, BFE_ALIGNMENT, bytes) == 0 ? bytes : 0;
        if (size == 0)
            memory = NULL;
    }
    return memory;
}

/* Without memory for them the weights stay where they lie. */
uint64_t bfd_prepare(bfe_model *model) {
    void *memory = NULL;
    const size_t bytes = bfe_prepared_size(model, kernels);
    if (bytes != 0 && posix_memalign(&memory, BFE_PREPARED_ALIGNMENT, bytes) != 0)
        return 0;
    if (bfe_prepare(model, kernels, memory, bytes) == BFE_OK)
        return bytes; /* the memory is the model's until the program ends */
    free(memory);
    return 0;
}

void bfd_divide(bfe_options *options) {
    if (pool == NULL)
        return;
    options->workers = threads;
    options->parallel = bfe_pool_run;
    options->parallel_context = pool;
}

const char *bfd_memory_kind(void) { return "dram"; }

const uint8_t *bfd_stack_low(void) { return stack; }

const uint8_t *bfd_stack_high(void) { return stack + STACK_BYTES; }

uint64_t bfd_free_memory(void) {
#ifdef _SC_AVPHYS_PAGES
    const long pages = sysconf(_SC_AVPHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    return pages < 0 || page < 0 ? BFD_UNKNOWN : (uint64_t)pages * (uint64_t)page;
#else
    return BFD_UNKNOWN;
#endif
}

static int complain(const char *path, const char *what) {
    fprintf(stderr, "error: %s: %s\n", path, what);
    return 1;
}

/* An empty file cannot be mapped; it is no model, and the runtime says so of no bytes at all. */
static int map_model(const char *path) {
    static const uint8_t nothing[BFE_ALIGNMENT] __attribute__((aligned(BFE_ALIGNMENT)));
    struct stat status;
    const int file = open(path, O_RDONLY);
    if (file < 0 || fstat(file, &status) != 0)
        return complain(path, strerror(errno));
    if (!S_ISREG(status.st_mode))
        return complain(path, "not a file");
    model_bytes = (size_t)status.st_size;
    model_file = nothing;
    if (model_bytes != 0) {
        void *const mapped = mmap(NULL, model_bytes, PROT_READ, MAP_PRIVATE, file, 0);
        if (mapped == MAP_FAILED)
            return complain(path, strerror(errno));
        model_file = mapped;
    }
    close(file);
    return 0;
}

/* The compiler may have put what is missing into the functions that say so, too: then it is said as far as it goes. */
static void refuse_processor(const char *missing) {
    static volatile sig_atomic_t is_said;
    if (!is_said) {
        is_said = 1;
        bfd_illegal_instruction(missing);
    }
    _exit(132);
}

/* Not asynchronous: the signal is about the instruction that the thread has just tried. */
static void on_illegal_instruction(int number) {
    (void)number;
    refuse_processor("an instruction that the program needs");
}

static void *serve(void *status) {
    *(int *)status = bfd_serve();
    return NULL;
}

/* Does the library have them, and this processor what they need? */
static int are_usable(const char *name) {
    const char *known;
    for (uint32_t i = 0; (known = bfe_kernels_name(i)) != NULL; i++)
        if (strcmp(name, known) == 0)
            return 1;
    return 0;
}

/* Reads the options; returns how many words they are, or -1 after a complaint. */
static int read_options(int argc, char **argv) {
    int at = 1;
    for (; at + 1 < argc && argv[at][0] == '-'; at += 2) {
        if (strcmp(argv[at], "--kernels") == 0) {
            kernels = argv[at + 1];
            if (!are_usable(kernels))
                return complain(kernels, "no kernels for this processor have this name"), -1;
        } else if (strcmp(argv[at], "--threads") == 0) {
            char *end;
            const unsigned long number = strtoul(argv[at + 1], &end, 10);
            if (*end != '\0' || number < 1 || number > BFE_MOST_WORKERS)
                return complain(argv[at + 1], "not a number of threads from 1 to 64"), -1;
            threads = (uint32_t)number;
        } else {
            break;
        }
    }
    return at - 1;
}

int main(int argc, char **argv) {
    const int options = read_options(argc, argv);
    if (options < 0)
        return 1;
    argc -= options;
    argv += options;
    if (argc < 2 || argv[1][0] == '-') {
        fprintf(stderr, "usage: bfedge-device [--kernels NAME] [--threads N] model.bfe [command ...]\n");
        return argc == 2 && strcmp(argv[1], "--help") == 0 ? 0 : 1;
    }
    signal(SIGPIPE, SIG_IGN);
    static struct sigaction on_illegal; /* static: clearing it needs no instructions */
    on_illegal.sa_handler = on_illegal_instruction;
    on_illegal.sa_flags = SA_NODEFER;
    sigaction(SIGILL, &on_illegal, NULL);
    const char *const missing = bfd_missing_feature();
    if (missing != NULL)
        refuse_processor(missing);
    if (map_model(argv[1]) != 0)
        return 1;
    arguments = argc > 2 ? argv + 2 : NULL;
    if (threads > 1 && (pool = bfe_pool_start(threads)) == NULL)
        return complain("--threads", "no thread could be started");

    int status = 1;
    pthread_t thread;
    pthread_attr_t attributes;
    void *memory = NULL;
    if (posix_memalign(&memory, 65536, STACK_BYTES) != 0 || pthread_attr_init(&attributes) != 0 ||
        pthread_attr_setstack(&attributes, memory, STACK_BYTES) != 0)
        return complain(argv[0], "no memory for a stack");
    stack = memory;
    if (pthread_create(&thread, &attributes, serve, &status) != 0 || pthread_join(thread, NULL) != 0)
        return complain(argv[0], "no thread could be started");
    bfd_flush();
    return status;
}
