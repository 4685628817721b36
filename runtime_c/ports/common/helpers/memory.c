/* What ../include/string.h declares, and compilers call by themselves, where there is no C library. */
#include <stdint.h>
#include <string.h>

/* Or a compiler would recognise memcpy in memcpy, and make it call itself. */
#if defined(__clang__)
#define AS_WRITTEN __attribute__((no_builtin))
#else
#define AS_WRITTEN __attribute__((optimize("no-tree-loop-distribute-patterns")))
#endif

AS_WRITTEN void *memcpy(void *restrict to, const void *restrict from, size_t size) {
    uint8_t *const t = to;
    const uint8_t *const f = from;
    for (size_t i = 0; i < size; i++)
        t[i] = f[i];
    return to;
}

AS_WRITTEN void *memmove(void *to, const void *from, size_t size) {
    uint8_t *const t = to;
    const uint8_t *const f = from;
    if ((uintptr_t)to <= (uintptr_t)from) {
        for (size_t i = 0; i < size; i++)
            t[i] = f[i];
    } else {
        for (size_t i = size; i-- > 0;)
            t[i] = f[i];
    }
    return to;
}

AS_WRITTEN void *memset(void *to, int byte, size_t size) {
    uint8_t *const t = to;
    for (size_t i = 0; i < size; i++)
        t[i] = (uint8_t)byte;
    return to;
}

AS_WRITTEN int memcmp(const void *a, const void *b, size_t size) {
    const uint8_t *const x = a, *const y = b;
    for (size_t i = 0; i < size; i++)
        if (x[i] != y[i])
            return x[i] < y[i] ? -1 : 1;
    return 0;
}

AS_WRITTEN void *memchr(const void *bytes, int byte, size_t size) {
    const uint8_t *const b = bytes;
    for (size_t i = 0; i < size; i++)
        if (b[i] == (uint8_t)byte)
            return (void *)(uintptr_t)(b + i);
    return NULL;
}

AS_WRITTEN size_t strlen(const char *text) {
    size_t length = 0;
    while (text[length] != '\0')
        length++;
    return length;
}

AS_WRITTEN int strcmp(const char *a, const char *b) {
    while (*a != '\0' && *a == *b) {
        a++;
        b++;
    }
    return (uint8_t)*a - (uint8_t)*b;
}
