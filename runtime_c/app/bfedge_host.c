/*
 * bfedge-host: runs a packed model on the machine it is compiled for.
 *
 * `bfedge-host model.bfe` runs the golden cases in the file: are this machine's bits the expected ones?
 *
 * `bfedge-host model.bfe images.u8 logits.f32` runs every image of a raw file and writes raw little-endian binary32.
 *
 * Unlike the library it may allocate and print. The workspace is exactly as large as bfe_workspace_size says.
 */
#include "bfedge.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] = "usage: bfedge-host [--tile N] model.bfe [images.u8 logits.f32]\n";

/* Memory from malloc, and an aligned place in it. */
typedef struct buffer {
    void *allocation;
    uint8_t *bytes;
    size_t size;
} buffer;

static int allocate(buffer *b, size_t size) {
    b->allocation = size <= SIZE_MAX - BFE_ALIGNMENT ? malloc(size + BFE_ALIGNMENT) : NULL;
    if (b->allocation == NULL)
        return 0;
    b->bytes = (uint8_t *)b->allocation + (BFE_ALIGNMENT - (uintptr_t)b->allocation % BFE_ALIGNMENT) % BFE_ALIGNMENT;
    b->size = size;
    return 1;
}

static int complain(const char *path, const char *what) {
    fprintf(stderr, "error: %s: %s\n", path, what);
    return 0;
}

static int read_file(const char *path, buffer *content) {
    FILE *const file = fopen(path, "rb");
    if (file == NULL)
        return complain(path, "cannot open the file");
    const int readable = fgetc(file) != EOF || !ferror(file); /* a folder is not, whatever its size */
    const long size = fseek(file, 0, SEEK_END) == 0 ? ftell(file) : -1;
    rewind(file);
    int ok = readable && size >= 0 && allocate(content, (size_t)size);
    ok = ok && fread(content->bytes, 1, content->size, file) == content->size;
    fclose(file);
    return ok ? 1 : complain(path, "cannot read the file");
}

/* Writes under another name first: whoever looks sees no half-written file under this one. */
static int write_file(const char *path, const void *bytes, size_t size) {
    static const char suffix[] = ".tmp";
    char *const temporary = malloc(strlen(path) + sizeof suffix);
    if (temporary == NULL)
        return complain(path, "not enough memory");
    strcpy(temporary, path);
    strcat(temporary, suffix);

    FILE *const file = fopen(temporary, "wb");
    int ok = file != NULL && fwrite(bytes, 1, size, file) == size;
    if (file != NULL && fclose(file) != 0)
        ok = 0;
#ifdef _WIN32
    if (ok)
        remove(path); /* rename does not replace there */
#endif
    ok = ok && rename(temporary, path) == 0;
    if (!ok && file != NULL)
        remove(temporary);
    free(temporary);
    return ok ? 1 : complain(path, "cannot write the file");
}

static int open_model(const char *path, const buffer *file, bfe_model *model) {
    bfe_diag diag;
    const bfe_status status = bfe_open(model, file->bytes, file->size, &diag);
    if (status == BFE_OK)
        return 1;
    fprintf(stderr, "error: %s: %s (rule V%" PRIu32 ", offset %" PRIu32, path, bfe_status_text(status), diag.rule,
            diag.offset);
    if (diag.kind != 0)
        fprintf(stderr, ", section %u", (unsigned)diag.kind);
    if (diag.block != BFE_NO_BLOCK)
        fprintf(stderr, " of block %u", (unsigned)diag.block);
    fprintf(stderr, ")\n");
    return 0;
}

static int run(const bfe_model *model, const bfe_options *options, const buffer *workspace, const uint8_t *image,
               float *logits) {
    const bfe_status status = bfe_run(model, options, workspace->bytes, workspace->size, image, logits);
    if (status != BFE_OK)
        fprintf(stderr, "error: bfe_run: %s\n", bfe_status_text(status));
    return status == BFE_OK;
}

static uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* Prints how one case came out; 1 if every bit is the expected one. */
static int report_case(uint32_t index, const float *got, const float *expected, uint32_t classes) {
    uint32_t differing = 0, first = 0;
    for (uint32_t i = classes; i-- > 0;) {
        if (bits_of(got[i]) != bits_of(expected[i])) {
            differing++;
            first = i;
        }
    }
    if (differing == 0)
        printf("case %" PRIu32 ": equal\n", index);
    else
        printf("case %" PRIu32 ": %" PRIu32 " of %" PRIu32 " logits differ, first at %" PRIu32 ": got 0x%08" PRIx32
               " expected 0x%08" PRIx32 "\n",
               index, differing, classes, first, bits_of(got[first]), bits_of(expected[first]));
    return differing == 0;
}

static int run_golden(const char *path, const bfe_model *model, const bfe_options *options, const buffer *workspace) {
    if (model->golden_count == 0)
        return complain(path, "no golden cases in the file");
    float *const logits = malloc(model->config.classes * sizeof *logits);
    if (logits == NULL)
        return complain(path, "not enough memory");

    uint32_t equal = 0;
    int ok = 1;
    for (uint32_t i = 0; ok && i < model->golden_count; i++) {
        const uint8_t *input = NULL;
        const float *expected = NULL;
        ok = bfe_golden(model, i, &input, &expected) == BFE_OK && run(model, options, workspace, input, logits);
        if (ok)
            equal += (uint32_t)report_case(i, logits, expected, model->config.classes);
    }
    free(logits);
    if (ok)
        printf("%" PRIu32 " of %" PRIu32 " golden cases equal, workspace %zu bytes\n", equal, model->golden_count,
               workspace->size);
    return ok && equal == model->golden_count;
}

static int run_images(const char *images_path, const char *logits_path, const bfe_model *model,
                      const bfe_options *options, const buffer *workspace) {
    buffer images = {NULL, NULL, 0};
    float *logits = NULL;
    int ok = read_file(images_path, &images);
    const size_t image_size = bfe_input_size(model), classes = model->config.classes;
    const size_t count = images.size / image_size;
    if (ok && (count == 0 || images.size % image_size != 0)) {
        fprintf(stderr, "error: %s: %zu bytes are not a positive multiple of an image's %zu\n", images_path,
                images.size, image_size);
        ok = 0;
    }
    if (ok) {
        logits = count <= SIZE_MAX / sizeof *logits / classes ? malloc(count * classes * sizeof *logits) : NULL;
        ok = logits != NULL || complain(logits_path, "not enough memory");
    }
    for (size_t i = 0; ok && i < count; i++)
        ok = run(model, options, workspace, images.bytes + i * image_size, logits + i * classes);
    ok = ok && write_file(logits_path, logits, count * classes * sizeof *logits);
    if (ok)
        printf("%zu images, workspace %zu bytes\n", count, workspace->size);
    free(logits);
    free(images.allocation);
    return ok;
}

/* The options and up to three paths; 0 if the command line is none of those in the usage. */
static int parse(int argc, char **argv, bfe_options *options, const char *paths[3], int *path_count) {
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--tile") == 0) {
            char *end = NULL;
            const unsigned long tile = i + 1 < argc ? strtoul(argv[i + 1], &end, 10) : 0;
            if (end == NULL || *end != '\0' || argv[i + 1][0] < '0' || argv[i + 1][0] > '9' || tile > UINT32_MAX)
                return 0;
            options->tile_tokens = (uint32_t)tile;
            i++;
        } else if (argv[i][0] == '-' || *path_count == 3) {
            return 0;
        } else {
            paths[(*path_count)++] = argv[i];
        }
    }
    return *path_count == 1 || *path_count == 3;
}

int main(int argc, char **argv) {
    bfe_options options = {0, NULL, NULL};
    const char *paths[3] = {NULL, NULL, NULL};
    int path_count = 0;
    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return fputs(usage, stdout) < 0;
    if (!parse(argc, argv, &options, paths, &path_count))
        return fputs(usage, stderr), 1;

    bfe_model model;
    buffer file = {NULL, NULL, 0}, workspace = {NULL, NULL, 0};
    int ok = read_file(paths[0], &file) && open_model(paths[0], &file, &model);
    if (ok) {
        const size_t size = bfe_workspace_size(&model, &options);
        ok = (size != 0 && allocate(&workspace, size)) || complain(paths[0], "not enough memory for the workspace");
    }
    if (ok)
        ok = path_count == 1 ? run_golden(paths[0], &model, &options, &workspace)
                             : run_images(paths[1], paths[2], &model, &options, &workspace);
    free(workspace.allocation);
    free(file.allocation);
    return ok ? 0 : 1;
}
