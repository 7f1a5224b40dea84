/* Sums of ring vectors, modulo 2^32 or 2^64, and the extent of one: what latticeward/updates/ring.py computes in NumPy,
 * at memory's speed.
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
/* Compilers widen 32 bits to 64 by shuffles and whole multiplications in AVX-512, which is slower than AVX2. */
#define UP_TO_AVX2 __attribute__((target_clones("avx2", "default")))
#else
#define EVERY_WIDTH
#define UP_TO_AVX2
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

/* The extent of a vector read as signed: its least and greatest coordinate, and its sum of squares, exactly. What is
 * added to a sum are halves of 32 bits, so that none overflows below 2^30 coordinates; digit k counts 2^(32k).
 */
#define LOW(x) ((x) & 0xffffffffu)
#define HIGH(x) ((x) >> 32)
#define SQUARE(x) ((uint64_t)((int64_t)(x) * (x)))
#define BOUND(x) (least = (x) < least ? (x) : least, greatest = (x) > greatest ? (x) : greatest)

typedef int32_t __attribute__((aligned(1))) signed_32;
typedef int64_t __attribute__((aligned(1))) signed_64;

UP_TO_AVX2 void latticeward_ring_extent_32(const signed_32 *vector, size_t length, int64_t bounds[2],
                                           uint64_t digits[4])
{
    enum { THIRD = 128, TILE = 3 * THIRD, AHEAD = 1024, LINE = LINE_BYTES / sizeof(int32_t) };
    int32_t least = INT32_MAX, greatest = INT32_MIN;
    uint64_t low = 0, high = 0;
    size_t i = 0;
    for (; i + TILE <= length; i += TILE) {
        for (size_t p = i + AHEAD; p < i + AHEAD + TILE; p += LINE)
            __builtin_prefetch(vector + p);
        for (size_t j = i; j < i + THIRD; j++) {
            int32_t x = vector[j], y = vector[j + THIRD], z = vector[j + 2 * THIRD];
            BOUND(x), BOUND(y), BOUND(z);
            uint64_t squares = SQUARE(x) + SQUARE(y) + SQUARE(z); /* at most 3·2^62 */
            low += LOW(squares), high += HIGH(squares);
        }
    }
    for (; i < length; i++) {
        int32_t x = vector[i];
        BOUND(x);
        low += LOW(SQUARE(x)), high += HIGH(SQUARE(x));
    }
    bounds[0] = least, bounds[1] = greatest;
    digits[0] = low, digits[1] = high, digits[2] = digits[3] = 0;
}

EVERY_WIDTH void latticeward_ring_extent_64(const signed_64 *vector, size_t length, int64_t bounds[2],
                                            uint64_t digits[4])
{
    int64_t least = INT64_MAX, greatest = INT64_MIN;
    uint64_t bb_low = 0, bb_high = 0, ab_low = 0, ab_high = 0, aa_low = 0, aa_high = 0;
    for (size_t i = 0; i < length; i++) {
        int64_t x = vector[i];
        BOUND(x);
        uint64_t size = x < 0 ? 0 - (uint64_t)x : (uint64_t)x;
        uint64_t a = HIGH(size), b = LOW(size); /* a·2^32 + b */
        bb_low += LOW(b * b), bb_high += HIGH(b * b);
        ab_low += LOW(a * b), ab_high += HIGH(a * b);
        aa_low += LOW(a * a), aa_high += HIGH(a * a);
    }
    bounds[0] = least, bounds[1] = greatest;
    digits[0] = bb_low, digits[1] = bb_high + 2 * ab_low;
    digits[2] = 2 * ab_high + aa_low, digits[3] = aa_high;
}
