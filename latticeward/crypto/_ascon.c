/* Ascon-AEAD128 (NIST SP 800-232): the compiled core behind latticeward/crypto/ascon_compiled.py.
 *
 * A plain shared library without Python.h. Two layers: one message of any length with associated data (scalar), and
 * batches of whole 16 KiB chunks of the stream form, 8, 4, 2 or 1 at a time. Which vector units exist is asked at run
 * time; every function names its own target, so one build serves every machine of its architecture.
 */

#include "_ascon_forms.h"

/* --- one message of any length, with associated data -------------------------------------------------------------- */

static uint64_t load_partial(const uint8_t *bytes, size_t length)
{
    uint8_t word[8] = {0};

    memcpy(word, bytes, length);
    return ascon_load(word);
}

static void store_partial(uint8_t *bytes, uint64_t word, size_t length)
{
    uint8_t whole[8];

    ascon_store(whole, word);
    memcpy(bytes, whole, length);
}

/* A one bit after the last byte of a block's word; length < 8. */
#define PADDING(length) (1ULL << (8 * (length)))
/* The bits of the first length bytes of a word; length < 8. */
#define KEPT(length) (PADDING(length) - 1)

static scalar_state start_message(const ascon_job *job, const uint8_t *data, size_t length)
{
    scalar_state s = {ASCON_IV, job->key[0], job->key[1], job->nonce[0], job->nonce[1]};

    scalar_permute(&s, 1, 0);
    s.x3 ^= job->key[0];
    s.x4 ^= job->key[1];
    if (length > 0) {
        for (; length >= ASCON_BLOCK; data += ASCON_BLOCK, length -= ASCON_BLOCK) {
            s.x0 ^= ascon_load(data);
            s.x1 ^= ascon_load(data + 8);
            scalar_permute(&s, 1, 4);
        }
        if (length >= 8) {
            s.x0 ^= ascon_load(data);
            s.x1 ^= load_partial(data + 8, length - 8) ^ PADDING(length - 8);
        } else {
            s.x0 ^= load_partial(data, length) ^ PADDING(length);
        }
        scalar_permute(&s, 1, 4);
    }
    s.x4 ^= ASCON_DOMAIN;
    return s;
}

static void finish_message(const ascon_job *job, scalar_state *s)
{
    s->x2 ^= job->key[0];
    s->x3 ^= job->key[1];
    scalar_permute(s, 1, 0);
    s->x3 ^= job->key[0];
    s->x4 ^= job->key[1];
}

static ascon_job take_job(const uint8_t *key, const uint8_t *nonce)
{
    ascon_job job = {{ascon_load(key), ascon_load(key + 8)}, {ascon_load(nonce), ascon_load(nonce + 8)}};

    return job;
}

/* out: length + 16 bytes. */
void latticeward_ascon_seal(const uint8_t *key, const uint8_t *nonce, const uint8_t *data, size_t data_length,
                            const uint8_t *in, size_t length, uint8_t *out)
{
    ascon_job job = take_job(key, nonce);
    scalar_state s = start_message(&job, data, data_length);

    for (; length >= ASCON_BLOCK; in += ASCON_BLOCK, out += ASCON_BLOCK, length -= ASCON_BLOCK) {
        s.x0 ^= ascon_load(in);
        s.x1 ^= ascon_load(in + 8);
        ascon_store(out, s.x0);
        ascon_store(out + 8, s.x1);
        scalar_permute(&s, 1, 4);
    }
    if (length >= 8) {
        s.x0 ^= ascon_load(in);
        s.x1 ^= load_partial(in + 8, length - 8);
        ascon_store(out, s.x0);
        store_partial(out + 8, s.x1, length - 8);
        s.x1 ^= PADDING(length - 8);
    } else {
        s.x0 ^= load_partial(in, length);
        store_partial(out, s.x0, length);
        s.x0 ^= PADDING(length);
    }
    finish_message(&job, &s);
    ascon_store(out + length, s.x3);
    ascon_store(out + length + 8, s.x4);
    ascon_wipe(&s, sizeof s);
    ascon_wipe(&job, sizeof job);
}

/* in: length + 16 bytes, out: length bytes. Returns 0, or -1 with out wiped. */
int latticeward_ascon_open(const uint8_t *key, const uint8_t *nonce, const uint8_t *data, size_t data_length,
                           const uint8_t *in, size_t length, uint8_t *out)
{
    ascon_job job = take_job(key, nonce);
    scalar_state s = start_message(&job, data, data_length);
    uint8_t *const released = out;
    const size_t released_length = length;
    uint64_t c0, c1, difference;

    for (; length >= ASCON_BLOCK; in += ASCON_BLOCK, out += ASCON_BLOCK, length -= ASCON_BLOCK) {
        c0 = ascon_load(in);
        c1 = ascon_load(in + 8);
        ascon_store(out, s.x0 ^ c0);
        ascon_store(out + 8, s.x1 ^ c1);
        s.x0 = c0;
        s.x1 = c1;
        scalar_permute(&s, 1, 4);
    }
    if (length >= 8) {
        c0 = ascon_load(in);
        c1 = load_partial(in + 8, length - 8);
        ascon_store(out, s.x0 ^ c0);
        store_partial(out + 8, s.x1 ^ c1, length - 8);
        s.x0 = c0;
        s.x1 = (s.x1 & ~KEPT(length - 8)) ^ c1 ^ PADDING(length - 8);
    } else {
        c0 = load_partial(in, length);
        store_partial(out, s.x0 ^ c0, length);
        s.x0 = (s.x0 & ~KEPT(length)) ^ c0 ^ PADDING(length);
    }
    finish_message(&job, &s);
    difference = (s.x3 ^ ascon_load(in + length)) | (s.x4 ^ ascon_load(in + length + 8));
    ascon_wipe(&s, sizeof s);
    ascon_wipe(&job, sizeof job);
    if (difference != 0) {
        ascon_wipe(released, released_length);
        return -1;
    }
    return 0;
}

/* --- batches of whole chunks ---------------------------------------------------------------------------------------- */

/* The widest form of this machine: 8, 4 or 2 lanes. */
int latticeward_ascon_lanes(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f"))
        return 8;
    if (__builtin_cpu_supports("avx2"))
        return 4;
#endif
    return 2;
}

/* Seals count chunks of 16 KiB, none of them the message's last, numbered from index. out: count * 16,400 bytes.
 * lanes must not exceed what latticeward_ascon_lanes() gives. */
void latticeward_ascon_seal_chunks(const uint8_t *key, const uint8_t *nonce, uint64_t index, const uint8_t *in,
                                   size_t count, uint8_t *out, int lanes)
{
    ascon_job job = take_job(key, nonce);

    while (count > 0) {
        const ascon_form *form = ascon_choose(lanes, count);

        form->seal(&job, index, in, out);
        index += form->width;
        count -= form->width;
        in += form->width * ASCON_CHUNK;
        out += form->width * ASCON_SEALED_CHUNK;
    }
    ascon_wipe(&job, sizeof job);
}

/* The reverse. All chunks are worked through before the answer, so its time does not say which tag was wrong.
 * Returns 0, or -1 with the whole of out wiped. */
int latticeward_ascon_open_chunks(const uint8_t *key, const uint8_t *nonce, uint64_t index, const uint8_t *in,
                                  size_t count, uint8_t *out, int lanes)
{
    ascon_job job = take_job(key, nonce);
    uint8_t *const released = out;
    const size_t released_length = count * ASCON_CHUNK;
    uint64_t difference = 0;

    while (count > 0) {
        const ascon_form *form = ascon_choose(lanes, count);

        difference |= form->open(&job, index, in, out);
        index += form->width;
        count -= form->width;
        in += form->width * ASCON_SEALED_CHUNK;
        out += form->width * ASCON_CHUNK;
    }
    ascon_wipe(&job, sizeof job);
    if (difference != 0) {
        ascon_wipe(released, released_length);
        return -1;
    }
    return 0;
}
