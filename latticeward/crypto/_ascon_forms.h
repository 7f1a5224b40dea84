/* The lane forms of Ascon-AEAD128 and the table of what a batch may choose from. */

#ifndef LATTICEWARD_ASCON_FORMS_H
#define LATTICEWARD_ASCON_FORMS_H

#include "_ascon.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* --- one lane: general registers ------------------------------------------------------------------------------ */

#define ROTATE(x, n) (((x) >> (n)) | ((x) << (64 - (n))))

#define ASCON_SETS 1
#define FORM(name) scalar_##name
#define LANES 1
#define TARGET
#define VECTOR uint64_t
#define ROR(x, n) ROTATE(x, n)
#define XOR3(a, b, c) ((a) ^ (b) ^ (c))
#define XNOR3(a, b, c) (~((a) ^ (b) ^ (c)))
#define CHI(a, b, c) ((a) ^ (~(b) & (c)))
#define SPREAD(word) ((uint64_t)(word))
#define LOAD(p, stride, a, b) ((a) = ascon_load(p), (b) = ascon_load((p) + 8))
#define STORE(p, stride, a, b) (ascon_store(p, a), ascon_store((p) + 8, b))
#include "_ascon_lanes.h"

/* --- two lanes: what every x86-64 (SSE2) and every aarch64 (NEON) has, written as plain vectors ------------------ */

typedef uint64_t pair __attribute__((vector_size(16)));

#define FORM(name) vector_##name
#define LANES 2
#define TARGET
#define VECTOR pair
#define ROR(x, n) ROTATE(x, n)
#define XOR3(a, b, c) ((a) ^ (b) ^ (c))
#define XNOR3(a, b, c) (~((a) ^ (b) ^ (c)))
#define CHI(a, b, c) ((a) ^ (~(b) & (c)))
#define SPREAD(word) ((pair){(uint64_t)(word), (uint64_t)(word)})
#define LOAD(p, stride, a, b)                                           \
    ((a) = (pair){ascon_load(p), ascon_load((p) + (stride))},           \
     (b) = (pair){ascon_load((p) + 8), ascon_load((p) + (stride) + 8)})
#define STORE(p, stride, a, b)                                                      \
    (ascon_store(p, (a)[0]), ascon_store((p) + 8, (b)[0]),                          \
     ascon_store((p) + (stride), (a)[1]), ascon_store((p) + (stride) + 8, (b)[1]))
#include "_ascon_lanes.h"

#if defined(__x86_64__)

/* --- four lanes: AVX2 ---------------------------------------------------------------------------------------------
 * Blocks of lanes 0 and 2 fill one register, of 1 and 3 another; the unpack instructions, which work within 128-bit
 * halves, then sort first from second words. */

typedef __m256i quad;

#undef ASCON_SETS
#define ASCON_SETS 2

#define HALF(p) _mm_loadu_si128((const __m128i *)(const void *)(p))
#define PUT(p, block) _mm_storeu_si128((__m128i *)(void *)(p), block)
#define JOIN(low, high) _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1)

#define FORM(name) avx2_##name
#define LANES 4
#define TARGET __attribute__((target("avx2")))
#define VECTOR quad
#define ROR(x, n) _mm256_or_si256(_mm256_srli_epi64(x, n), _mm256_slli_epi64(x, 64 - (n)))
#define XOR3(a, b, c) ((a) ^ (b) ^ (c))
#define XNOR3(a, b, c) (~((a) ^ (b) ^ (c)))
#define CHI(a, b, c) _mm256_xor_si256(a, _mm256_andnot_si256(b, c))
#define SPREAD(word) _mm256_set1_epi64x((long long)(word))
#define LOAD(p, stride, a, b)                                                            \
    do {                                                                                 \
        const __m256i even = JOIN(HALF(p), HALF((p) + 2 * (stride)));                    \
        const __m256i odd = JOIN(HALF((p) + (stride)), HALF((p) + 3 * (stride)));        \
        (a) = _mm256_unpacklo_epi64(even, odd);                                          \
        (b) = _mm256_unpackhi_epi64(even, odd);                                          \
    } while (0)
#define STORE(p, stride, a, b)                                                           \
    do {                                                                                 \
        const __m256i even = _mm256_unpacklo_epi64(a, b);                                \
        const __m256i odd = _mm256_unpackhi_epi64(a, b);                                 \
        PUT(p, _mm256_castsi256_si128(even));                                            \
        PUT((p) + (stride), _mm256_castsi256_si128(odd));                                \
        PUT((p) + 2 * (stride), _mm256_extracti128_si256(even, 1));                      \
        PUT((p) + 3 * (stride), _mm256_extracti128_si256(odd, 1));                       \
    } while (0)
#include "_ascon_lanes.h"

/* --- eight lanes: AVX-512, with its rotation and its three-operand logic ------------------------------------------ */

typedef __m512i octet;

#define JOIN4(p, stride)                                                                                           \
    _mm512_inserti64x4(_mm512_castsi256_si512(JOIN(HALF(p), HALF((p) + 2 * (stride)))),                            \
                       JOIN(HALF((p) + 4 * (stride)), HALF((p) + 6 * (stride))), 1)

#define FORM(name) avx512_##name
#define LANES 8
#define TARGET __attribute__((target("avx512f")))
#define VECTOR octet
#define ROR(x, n) _mm512_ror_epi64(x, n)
#define XOR3(a, b, c) _mm512_ternarylogic_epi64(a, b, c, 0x96)
#define XNOR3(a, b, c) _mm512_ternarylogic_epi64(a, b, c, 0x69)
#define CHI(a, b, c) _mm512_ternarylogic_epi64(a, b, c, 0xd2)
#define SPREAD(word) _mm512_set1_epi64((long long)(word))
#define LOAD(p, stride, a, b)                                            \
    do {                                                                 \
        const __m512i even = JOIN4(p, stride);                           \
        const __m512i odd = JOIN4((p) + (stride), stride);               \
        (a) = _mm512_unpacklo_epi64(even, odd);                          \
        (b) = _mm512_unpackhi_epi64(even, odd);                          \
    } while (0)
#define STORE(p, stride, a, b)                                                           \
    do {                                                                                 \
        const __m512i even = _mm512_unpacklo_epi64(a, b);                                \
        const __m512i odd = _mm512_unpackhi_epi64(a, b);                                 \
        PUT(p, _mm512_castsi512_si128(even));                                            \
        PUT((p) + (stride), _mm512_castsi512_si128(odd));                                \
        PUT((p) + 2 * (stride), _mm512_extracti32x4_epi32(even, 1));                     \
        PUT((p) + 3 * (stride), _mm512_extracti32x4_epi32(odd, 1));                      \
        PUT((p) + 4 * (stride), _mm512_extracti32x4_epi32(even, 2));                     \
        PUT((p) + 5 * (stride), _mm512_extracti32x4_epi32(odd, 2));                      \
        PUT((p) + 6 * (stride), _mm512_extracti32x4_epi32(even, 3));                     \
        PUT((p) + 7 * (stride), _mm512_extracti32x4_epi32(odd, 3));                      \
    } while (0)
#include "_ascon_lanes.h"

#endif

/* A form serves a batch when the batch may use vectors of that many lanes and has at least width chunks left. Widest
 * first, so a ragged tail steps down: 16, 8, 4, 2, 1. */
typedef struct {
    int lanes;
    size_t width;
    void (*seal)(const ascon_job *job, uint64_t index, const uint8_t *in, uint8_t *out);
    uint64_t (*open)(const ascon_job *job, uint64_t index, const uint8_t *in, uint8_t *out);
} ascon_form;

static const ascon_form ascon_forms[] = {
#if defined(__x86_64__)
    {8, 16, avx512_seal_twice, avx512_open_twice},
    {8, 8, avx512_seal, avx512_open},
    {4, 8, avx2_seal_twice, avx2_open_twice},
    {4, 4, avx2_seal, avx2_open},
#endif
    {2, 2, vector_seal, vector_open},
    {1, 1, scalar_seal, scalar_open},
};

/* lanes: 1, 2, 4 or 8, at most what this machine has; count > 0. */
static inline const ascon_form *ascon_choose(int lanes, size_t count)
{
    const ascon_form *form = ascon_forms;

    while (form->lanes > lanes || form->width > count)
        form++;
    return form;
}

#endif
