/* What the lane forms of Ascon-AEAD128 (NIST SP 800-232) share: constants, words and the job of one message. */

#ifndef LATTICEWARD_ASCON_H
#define LATTICEWARD_ASCON_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define ASCON_IV 0x00001000808c0001ULL
#define ASCON_DOMAIN 0x8000000000000000ULL
#define ASCON_BLOCK 16
#define ASCON_TAG 16
#define ASCON_CHUNK 16384
#define ASCON_SEALED_CHUNK (ASCON_CHUNK + ASCON_TAG)

/* Key and first nonce of one message as little-endian words. */
typedef struct {
    uint64_t key[2];
    uint64_t nonce[2];
} ascon_job;

/* The standard reads bytes as little-endian words; a big-endian host has to turn them. */
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define ascon_little_endian(word) __builtin_bswap64(word)
#define ascon_big_endian(word) (word)
#else
#define ascon_little_endian(word) (word)
#define ascon_big_endian(word) __builtin_bswap64(word)
#endif

#define ascon_round_constant(i) (uint64_t)(0xf0 - 0x0f * (i))

static inline uint64_t ascon_load(const uint8_t *bytes)
{
    uint64_t word;

    memcpy(&word, bytes, sizeof word);
    return ascon_little_endian(word);
}

static inline void ascon_store(uint8_t *bytes, uint64_t word)
{
    word = ascon_little_endian(word);
    memcpy(bytes, &word, sizeof word);
}

/* A wipe that the optimiser must not drop although the memory is not read again. */
static inline void ascon_wipe(void *memory, size_t length)
{
    memset(memory, 0, length);
    __asm__ __volatile__("" : : "r"(memory) : "memory");
}

#endif
