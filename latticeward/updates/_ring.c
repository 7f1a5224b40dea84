/* Sums of ring vectors, modulo 2^32 or 2^64: what latticeward/updates/ring.py computes in NumPy, at memory's speed.
 *
 * NumPy adds one vector at a time, so the sum is loaded and stored once a vector: about half of what memory gives.
 * Here four vectors are added at once to a block of the sum that stays in the second cache, and what comes next of each
 * is asked for ahead, since four streams are more than some prefetchers follow. Vectors may begin at any address, since
 * they lie inside decrypted bytes, and may not overlap the sum.
 */
#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__) && defined(__GLIBC__)
#define EVERY_WIDTH __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define EVERY_WIDTH
#endif

#define BLOCK_BYTES 131072
#define AHEAD_BYTES 2048
#define LINE_BYTES 64
#define TILE_BYTES 256

#define DEFINE_ADD(NAME, WORD)                                                                                         \
    typedef WORD __attribute__((aligned(1))) NAME##_word;                                                              \
    EVERY_WIDTH void NAME(NAME##_word *restrict sum, const NAME##_word *const *vectors, size_t count, size_t length)   \
    {                                                                                                                  \
        enum { BLOCK = BLOCK_BYTES / sizeof(WORD), AHEAD = AHEAD_BYTES / sizeof(WORD),                                 \
               LINE = LINE_BYTES / sizeof(WORD), TILE = TILE_BYTES / sizeof(WORD) };                                   \
        for (size_t start = 0; start < length; start += BLOCK) {                                                       \
            size_t n = length - start < BLOCK ? length - start : BLOCK, k = 0;                                         \
            NAME##_word *restrict s = sum + start;                                                                     \
            for (; k + 4 <= count; k += 4) {                                                                           \
                const NAME##_word *a = vectors[k] + start, *b = vectors[k + 1] + start;                                \
                const NAME##_word *c = vectors[k + 2] + start, *d = vectors[k + 3] + start;                            \
                size_t i = 0;                                                                                          \
                for (; i + TILE <= n; i += TILE) {                                                                     \
                    for (size_t p = i + AHEAD; p < i + AHEAD + TILE; p += LINE) {                                      \
                        __builtin_prefetch(a + p);                                                                     \
                        __builtin_prefetch(b + p);                                                                     \
                        __builtin_prefetch(c + p);                                                                     \
                        __builtin_prefetch(d + p);                                                                     \
                    }                                                                                                  \
                    for (size_t j = i; j < i + TILE; j++)                                                              \
                        s[j] += (a[j] + b[j]) + (c[j] + d[j]);                                                         \
                }                                                                                                      \
                for (; i < n; i++)                                                                                     \
                    s[i] += (a[i] + b[i]) + (c[i] + d[i]);                                                             \
            }                                                                                                          \
            for (; k < count; k++) {                                                                                   \
                const NAME##_word *a = vectors[k] + start;                                                             \
                for (size_t i = 0; i < n; i++)                                                                         \
                    s[i] += a[i];                                                                                      \
            }                                                                                                          \
        }                                                                                                              \
    }

DEFINE_ADD(latticeward_ring_add_32, uint32_t)
DEFINE_ADD(latticeward_ring_add_64, uint64_t)
