/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * TLS of the API listener: OpenSSL contexts, and who a client certificate is.
 */

#ifndef TD_TLS_H
#define TD_TLS_H

#include <openssl/ssl.h>

#include "td_config.h"

#define TD_TLS_MAX_NAMES  16

typedef struct {
    char    *name[TD_TLS_MAX_NAMES];    /* common name first, then URI names */
    size_t   names;
    char     sha256[65];                /* hex, of the whole certificate */
} td_tls_peer_t;

/* Certificate, key and client CA of config; NULL with err set. */
SSL_CTX *td_tls_create(const td_config_t *config, tg_error_t *err);

/*
 * The verified client certificate of a connection.  Returns 0 and fills peer,
 * to be cleared; or -1: there is none.
 */
int td_tls_peer(SSL *ssl, td_tls_peer_t *peer);

void td_tls_peer_clear(td_tls_peer_t *peer);

#endif /* TD_TLS_H */
