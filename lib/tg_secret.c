/* SPDX-License-Identifier: BSD-2-Clause */

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <openssl/sha.h>

#include "tg_b64.h"
#include "tg_secret.h"


#define TG_SECRET_PREFIX      "tg1."
#define TG_SECRET_PREFIX_LEN  (sizeof(TG_SECRET_PREFIX) - 1)
#define TG_SECRET_HEAD_LEN    (TG_SECRET_PREFIX_LEN + TG_SECRET_KEY_ID + 1)
#define TG_SECRET_NONCE       12
#define TG_SECRET_TAG         16
#define TG_SECRET_OVERHEAD    (TG_SECRET_NONCE + TG_SECRET_TAG)

static const char  tg_secret_aad[] = "tiergate:jwk:v1";
static const char  tg_secret_hex[] = "0123456789abcdef";


static int
tg_secret_hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }

    c |= 0x20;

    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}


static int
tg_secret_is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}


int
tg_secret_parse_key(const char *text, size_t len,
    uint8_t key[TG_SECRET_KEY_SIZE], tg_error_t *err)
{
    int     hi, lo;
    size_t  i;

    while (len > 0 && tg_secret_is_space(text[0])) {
        text++;
        len--;
    }

    while (len > 0 && tg_secret_is_space(text[len - 1])) {
        len--;
    }

    if (len != 2 * TG_SECRET_KEY_SIZE) {
        tg_error_set(err, "", "a secret key is %d hex digits, not %zu "
                     "characters", 2 * TG_SECRET_KEY_SIZE, len);
        return -1;
    }

    for (i = 0; i < TG_SECRET_KEY_SIZE; i++) {
        hi = tg_secret_hex_digit(text[2 * i]);
        lo = tg_secret_hex_digit(text[2 * i + 1]);

        if (hi < 0 || lo < 0) {
            OPENSSL_cleanse(key, TG_SECRET_KEY_SIZE);
            tg_error_set(err, "", "a secret key consists of hex digits only");
            return -1;
        }

        key[i] = (uint8_t) (hi << 4 | lo);
    }

    return 0;
}


int
tg_secret_load_key(const char *path, uint8_t key[TG_SECRET_KEY_SIZE],
    tg_error_t *err)
{
    int          fd, rc;
    char         text[256];
    ssize_t      n;
    struct stat  st;

    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        tg_error_set(err, "", "cannot open \"%s\": %s", path, strerror(errno));
        return -1;
    }

    rc = -1;

    if (fstat(fd, &st) != 0 || (st.st_mode & S_IRWXO)) {
        tg_error_set(err, "", "\"%s\" is open to everybody: chmod o= it", path);
        goto done;
    }

    n = read(fd, text, sizeof(text));
    if (n < 0) {
        tg_error_set(err, "", "cannot read \"%s\": %s", path, strerror(errno));
        goto done;
    }

    rc = tg_secret_parse_key(text, n, key, err);

done:

    OPENSSL_cleanse(text, sizeof(text));
    close(fd);

    return rc;
}


void
tg_secret_key_id(const uint8_t key[TG_SECRET_KEY_SIZE],
    char id[TG_SECRET_KEY_ID + 1])
{
    size_t        i;
    uint8_t       digest[SHA256_DIGEST_LENGTH];
    uint8_t       input[sizeof("tiergate:key-id:v1") - 1 + TG_SECRET_KEY_SIZE];
    const size_t  label = sizeof("tiergate:key-id:v1") - 1;

    memcpy(input, "tiergate:key-id:v1", label);
    memcpy(input + label, key, TG_SECRET_KEY_SIZE);
    SHA256(input, sizeof(input), digest);

    for (i = 0; i < TG_SECRET_KEY_ID / 2; i++) {
        id[2 * i] = tg_secret_hex[digest[i] >> 4];
        id[2 * i + 1] = tg_secret_hex[digest[i] & 15];
    }

    id[TG_SECRET_KEY_ID] = '\0';
    OPENSSL_cleanse(input, sizeof(input));
}


/* box: nonce, already filled, then room for the ciphertext and the tag. */
static int
tg_secret_encrypt(const uint8_t *key, const uint8_t *secret, size_t len,
    uint8_t *box)
{
    int              n, rc;
    uint8_t         *text;
    EVP_CIPHER_CTX  *ctx;

    text = box + TG_SECRET_NONCE;
    rc = -1;

    ctx = EVP_CIPHER_CTX_new();

    if (ctx != NULL
        && EVP_EncryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, key, box) == 1
        && EVP_EncryptUpdate(ctx, NULL, &n, (const uint8_t *) tg_secret_aad,
                             sizeof(tg_secret_aad) - 1) == 1
        && EVP_EncryptUpdate(ctx, text, &n, secret, (int) len) == 1
        && EVP_EncryptFinal_ex(ctx, text + n, &n) == 1
        && EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_GET_TAG, TG_SECRET_TAG,
                               text + len) == 1)
    {
        rc = 0;
    }

    EVP_CIPHER_CTX_free(ctx);

    return rc;
}


static int
tg_secret_decrypt(const uint8_t *key, uint8_t *box, size_t box_len,
    uint8_t *secret)
{
    int              n, rc;
    size_t           len;
    uint8_t         *text;
    EVP_CIPHER_CTX  *ctx;

    text = box + TG_SECRET_NONCE;
    len = box_len - TG_SECRET_OVERHEAD;
    rc = -1;

    ctx = EVP_CIPHER_CTX_new();

    if (ctx != NULL
        && EVP_DecryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, key, box) == 1
        && EVP_DecryptUpdate(ctx, NULL, &n, (const uint8_t *) tg_secret_aad,
                             sizeof(tg_secret_aad) - 1) == 1
        && EVP_DecryptUpdate(ctx, secret, &n, text, (int) len) == 1
        && EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_SET_TAG, TG_SECRET_TAG,
                               text + len) == 1
        && EVP_DecryptFinal_ex(ctx, secret + n, &n) == 1)
    {
        rc = 0;
    }

    EVP_CIPHER_CTX_free(ctx);

    return rc;
}


int
tg_secret_seal(const uint8_t key[TG_SECRET_KEY_SIZE], const uint8_t *secret,
    size_t len, char *out)
{
    size_t   n;
    uint8_t  box[TG_SECRET_MAX + TG_SECRET_OVERHEAD];

    if (len == 0 || len > TG_SECRET_MAX
        || RAND_bytes(box, TG_SECRET_NONCE) != 1
        || tg_secret_encrypt(key, secret, len, box) != 0)
    {
        return -1;
    }

    memcpy(out, TG_SECRET_PREFIX, TG_SECRET_PREFIX_LEN);
    tg_secret_key_id(key, out + TG_SECRET_PREFIX_LEN);
    out[TG_SECRET_HEAD_LEN - 1] = '.';

    n = tg_b64url_encode(out + TG_SECRET_HEAD_LEN, box,
                         len + TG_SECRET_OVERHEAD);
    out[TG_SECRET_HEAD_LEN + n] = '\0';

    return 0;
}


tg_secret_status_e
tg_secret_open(const uint8_t key[TG_SECRET_KEY_SIZE], const char *sealed,
    size_t len, uint8_t *secret, size_t *secret_len)
{
    char     id[TG_SECRET_KEY_ID + 1];
    size_t   room;
    ssize_t  n;
    uint8_t  box[TG_SECRET_MAX + TG_SECRET_OVERHEAD + 2];

    room = *secret_len;
    *secret_len = 0;

    if (len < TG_SECRET_HEAD_LEN || len >= tg_secret_sealed_size(TG_SECRET_MAX)
        || memcmp(sealed, TG_SECRET_PREFIX, TG_SECRET_PREFIX_LEN) != 0
        || sealed[TG_SECRET_HEAD_LEN - 1] != '.'
        || tg_b64url_decoded_size(len - TG_SECRET_HEAD_LEN) > sizeof(box))
    {
        return TG_SECRET_MALFORMED;
    }

    n = tg_b64url_decode(box, sealed + TG_SECRET_HEAD_LEN,
                         len - TG_SECRET_HEAD_LEN);

    if (n <= TG_SECRET_OVERHEAD || (size_t) n - TG_SECRET_OVERHEAD > room) {
        return TG_SECRET_MALFORMED;
    }

    tg_secret_key_id(key, id);

    if (memcmp(id, sealed + TG_SECRET_PREFIX_LEN, TG_SECRET_KEY_ID) != 0) {
        return TG_SECRET_OTHER_KEY;
    }

    if (tg_secret_decrypt(key, box, n, secret) != 0) {
        OPENSSL_cleanse(secret, n - TG_SECRET_OVERHEAD);
        return TG_SECRET_FORGED;
    }

    *secret_len = n - TG_SECRET_OVERHEAD;

    return TG_SECRET_OK;
}
