/* Counts what ports/common/helpers/memory.c, renamed to own_*, does otherwise than the C library. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
void *own_memcpy(void *, const void *, size_t), *own_memmove(void *, const void *, size_t),
    *own_memset(void *, int, size_t);
void *own_memchr(const void *, int, size_t);
int own_memcmp(const void *, const void *, size_t), own_strcmp(const char *, const char *);
size_t own_strlen(const char *);
static int sign(int x) { return (x > 0) - (x < 0); }
int main(void) {
    int wrong = 0;
    char a[64], b[64];
    for (int i = 0; i < 200000; i++) {
        for (int k = 0; k < 64; k++)
            a[k] = (char)((rand() >> 7) % 3 * 127);
        a[63] = 0;
        const size_t from = (size_t)rand() % 32, to = (size_t)rand() % 32, n = (size_t)rand() % 32;
        wrong += sign(own_memcmp(a + from, a + to, n)) != sign(memcmp(a + from, a + to, n));
        wrong += sign(own_strcmp(a + from, a + to)) != sign(strcmp(a + from, a + to));
        wrong += own_strlen(a + from) != strlen(a + from) || own_memchr(a + from, 254, n) != memchr(a + from, 254, n);
        memcpy(b, a, 64);
        wrong += own_memmove(a + to, a + from, n) != a + to;
        memmove(b + to, b + from, n);
        wrong += own_memset(a + from, i, n) != a + from;
        memset(b + from, i, n);
        wrong += own_memcpy(a + 32, a, n) != a + 32;
        memcpy(b + 32, b, n);
        wrong += memcmp(a, b, 64) != 0;
    }
    printf("%d wrong\n", wrong);
    return 0;
}
