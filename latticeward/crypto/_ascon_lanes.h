/* One lane form of Ascon-AEAD128 over whole chunks. _ascon_forms.h includes it once for each form and defines before:
 *
 *   FORM(name)    the name with the form's prefix
 *   LANES         how many independent chunks one vector holds
 *   TARGET        the target attribute of every function of this form (empty for the baseline)
 *   VECTOR        a type of LANES 64-bit words on which ^ & ~ work
 *   ROR(x, n), XOR3(a, b, c), XNOR3(a, b, c), CHI(a, b, c) = a ^ (~b & c), SPREAD(word)
 *   LOAD(p, stride, x0, x1), STORE(p, stride, x0, x1)    one 16-byte block of each lane <-> two vectors
 *
 * It gives FORM(seal), FORM(open) for LANES chunks and FORM(seal_twice), FORM(open_twice) for 2 * LANES, two sets of
 * vectors in turn. The order of the steps depends on lengths only, never on key or data: there is no table, no secret
 * index and no secret branch, so time tells nothing.
 */

#define INLINE TARGET static inline __attribute__((always_inline))
#define EACH_SET _Pragma("GCC unroll 2") for (size_t set = 0; set < count; set++)

typedef struct {
    VECTOR x0, x1, x2, x3, x4;
} FORM(state);

/* SP 800-232, section 3. A round's steps wait for one another and the sets do not: taking the sets in turn fills the
 * gaps. The complement of x2 after the substitution layer is folded into its linear layer. */
INLINE void FORM(permute)(FORM(state) * sets, const size_t count, const int first_round)
{
#pragma GCC unroll 12
    for (int i = first_round; i < 12; i++) {
        EACH_SET {
            VECTOR x0 = sets[set].x0, x1 = sets[set].x1, x2 = sets[set].x2, x3 = sets[set].x3, x4 = sets[set].x4;
            VECTOR t0, t1, t2, t3, t4;

            x2 = XOR3(x2, x1, SPREAD(ascon_round_constant(i)));
            x0 ^= x4;
            x4 ^= x3;
            t0 = CHI(x0, x1, x2);
            t1 = CHI(x1, x2, x3);
            t2 = CHI(x2, x3, x4);
            t3 = CHI(x3, x4, x0);
            t4 = CHI(x4, x0, x1);
            t1 ^= t0;
            t0 ^= t4;
            t3 ^= t2;
            sets[set].x0 = XOR3(t0, ROR(t0, 19), ROR(t0, 28));
            sets[set].x1 = XOR3(t1, ROR(t1, 61), ROR(t1, 39));
            sets[set].x2 = XNOR3(t2, ROR(t2, 1), ROR(t2, 6));
            sets[set].x3 = XOR3(t3, ROR(t3, 10), ROR(t3, 17));
            sets[set].x4 = XOR3(t4, ROR(t4, 7), ROR(t4, 41));
        }
    }
}

/* Key and nonce in, empty associated data, domain separation: the states before the first block of each chunk. */
INLINE void FORM(start)(FORM(state) * sets, const size_t count, const ascon_job *job, uint64_t index)
{
    EACH_SET {
        uint64_t last_words[LANES];

        for (size_t lane = 0; lane < LANES; lane++)
            last_words[lane] = job->nonce[1] ^ ascon_big_endian(index + set * LANES + lane);
        sets[set].x0 = SPREAD(ASCON_IV);
        sets[set].x1 = SPREAD(job->key[0]);
        sets[set].x2 = SPREAD(job->key[1]);
        sets[set].x3 = SPREAD(job->nonce[0]);
        memcpy(&sets[set].x4, last_words, sizeof last_words);
    }
    FORM(permute)(sets, count, 0);
    EACH_SET {
        sets[set].x3 ^= SPREAD(job->key[0]);
        sets[set].x4 ^= SPREAD(job->key[1] ^ ASCON_DOMAIN);
    }
}

/* A chunk is a whole number of blocks, so its padding block holds nothing but the one bit. The tags are left in x3
 * and x4. */
INLINE void FORM(finish)(FORM(state) * sets, const size_t count, const ascon_job *job)
{
    EACH_SET {
        sets[set].x0 ^= SPREAD(1);
        sets[set].x2 ^= SPREAD(job->key[0]);
        sets[set].x3 ^= SPREAD(job->key[1]);
    }
    FORM(permute)(sets, count, 0);
    EACH_SET {
        sets[set].x3 ^= SPREAD(job->key[0]);
        sets[set].x4 ^= SPREAD(job->key[1]);
    }
}

INLINE void FORM(seal_sets)(const size_t count, const ascon_job *job, uint64_t index, const uint8_t *in, uint8_t *out)
{
    FORM(state) sets[2];

    FORM(start)(sets, count, job, index);
    for (size_t at = 0; at < ASCON_CHUNK; at += ASCON_BLOCK) {
        EACH_SET {
            VECTOR p0, p1;

            LOAD(in + at + set * LANES * ASCON_CHUNK, ASCON_CHUNK, p0, p1);
            sets[set].x0 ^= p0;
            sets[set].x1 ^= p1;
            STORE(out + at + set * LANES * ASCON_SEALED_CHUNK, ASCON_SEALED_CHUNK, sets[set].x0, sets[set].x1);
        }
        FORM(permute)(sets, count, 4);
    }
    FORM(finish)(sets, count, job);
    EACH_SET
        STORE(out + ASCON_CHUNK + set * LANES * ASCON_SEALED_CHUNK, ASCON_SEALED_CHUNK, sets[set].x3, sets[set].x4);
}

/* Zero when every lane's tag is right; otherwise any other number. The caller wipes what was written. */
INLINE uint64_t FORM(open_sets)(const size_t count, const ascon_job *job, uint64_t index, const uint8_t *in,
                                uint8_t *out)
{
    FORM(state) sets[2];
    uint64_t words[2 * LANES], difference = 0;

    FORM(start)(sets, count, job, index);
    for (size_t at = 0; at < ASCON_CHUNK; at += ASCON_BLOCK) {
        EACH_SET {
            VECTOR c0, c1;

            LOAD(in + at + set * LANES * ASCON_SEALED_CHUNK, ASCON_SEALED_CHUNK, c0, c1);
            sets[set].x0 ^= c0;
            sets[set].x1 ^= c1;
            STORE(out + at + set * LANES * ASCON_CHUNK, ASCON_CHUNK, sets[set].x0, sets[set].x1);
            sets[set].x0 = c0;
            sets[set].x1 = c1;
        }
        FORM(permute)(sets, count, 4);
    }
    FORM(finish)(sets, count, job);
    EACH_SET {
        VECTOR c0, c1;

        LOAD(in + ASCON_CHUNK + set * LANES * ASCON_SEALED_CHUNK, ASCON_SEALED_CHUNK, c0, c1);
        sets[set].x3 ^= c0;
        sets[set].x4 ^= c1;
        memcpy(words, &sets[set].x3, sizeof(VECTOR));
        memcpy(words + LANES, &sets[set].x4, sizeof(VECTOR));
        for (size_t word = 0; word < 2 * LANES; word++)
            difference |= words[word];
    }
    return difference;
}

TARGET static void FORM(seal)(const ascon_job *job, uint64_t index, const uint8_t *in, uint8_t *out)
{
    FORM(seal_sets)(1, job, index, in, out);
}

TARGET static uint64_t FORM(open)(const ascon_job *job, uint64_t index, const uint8_t *in, uint8_t *out)
{
    return FORM(open_sets)(1, job, index, in, out);
}

#if ASCON_SETS == 2
TARGET static void FORM(seal_twice)(const ascon_job *job, uint64_t index, const uint8_t *in, uint8_t *out)
{
    FORM(seal_sets)(2, job, index, in, out);
}

TARGET static uint64_t FORM(open_twice)(const ascon_job *job, uint64_t index, const uint8_t *in, uint8_t *out)
{
    return FORM(open_sets)(2, job, index, in, out);
}
#endif

#undef INLINE
#undef EACH_SET
#undef FORM
#undef LANES
#undef TARGET
#undef VECTOR
#undef ROR
#undef XOR3
#undef XNOR3
#undef CHI
#undef SPREAD
#undef LOAD
#undef STORE
