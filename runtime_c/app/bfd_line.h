/* Lines of the protocol (PROTOCOL.md): commands word by word, answers member by member. */
#ifndef BFD_LINE_H
#define BFD_LINE_H

#include <stddef.h>
#include <stdint.h>

/* The line that is being read. Nothing may be believed before bfd_line_end has said so. */
typedef struct bfd_command {
    uint32_t crc; /* of what was read so far */
    int ended;    /* the line is over */
    int no_more;  /* so is the input */
    int wrong;    /* the checksum is wrong, or there is something on the line that should not be */
} bfd_command;

/* Starts reading a line. */
void bfd_line_begin(bfd_command *command);

/* The next word, zero-terminated and cut at `capacity`; returns its length, 0 if there is none, `capacity` or more if
 * it was cut. */
size_t bfd_word(bfd_command *command, char *word, size_t capacity);

/* The next word as hexadecimal bytes; returns how many there were, of which at most `capacity` are written. SIZE_MAX if
 * it is not hexadecimal. */
size_t bfd_hex_word(bfd_command *command, uint8_t *bytes, size_t capacity);

/* Reads what is left of the line, and checks the checksum: 1 if the line may be believed. */
int bfd_line_end(bfd_command *command);

/* A decimal word: 1 if it is one and fits. */
int bfd_number(const char *word, uint32_t *number);

/* The answer that is being written. */
typedef struct bfd_answer {
    uint32_t crc;
    int comma; /* the next member needs one in front */
} bfd_answer;

/* An answer's three first members; then its others; then bfd_end, which sends it. */
bfd_answer bfd_begin(uint32_t id, const char *type);
void bfd_put_text(bfd_answer *answer, const char *name, const char *text);
void bfd_put_number(bfd_answer *answer, const char *name, uint64_t number); /* BFD_UNKNOWN becomes null */
void bfd_put_version(bfd_answer *answer, const char *name, uint32_t major, uint32_t minor, const uint32_t *patch);
void bfd_put_bool(bfd_answer *answer, const char *name, int truth);
void bfd_put_null(bfd_answer *answer, const char *name);
void bfd_put_hex(bfd_answer *answer, const char *name, uint32_t word);               /* 8 digits */
void bfd_put_floats(bfd_answer *answer, const char *name, const float *x, size_t n); /* 8 digits each */
void bfd_open_object(bfd_answer *answer, const char *name);
void bfd_close_object(bfd_answer *answer);
void bfd_end(bfd_answer *answer);

/* A whole `error` answer. */
void bfd_error(uint32_t id, const char *code, const char *message);

/* The error `illegal-instruction`, in the middle of whatever line is being written. `missing` says in words what the
 * processor lacks, NULL if nobody knows. */
void bfd_illegal_instruction(const char *missing);

#endif
