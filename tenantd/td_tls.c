/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/x509v3.h>

#include "td_tls.h"


static const unsigned char  td_tls_session_id[] = "tenantd";


static void
td_tls_error(tg_error_t *err, const char *what, const char *file)
{
    char  reason[160];

    ERR_error_string_n(ERR_peek_last_error(), reason, sizeof(reason));
    ERR_clear_error();
    tg_error_set(err, "", "TLS: cannot %s \"%.60s\": %s", what, file, reason);
}


static int
td_tls_load(SSL_CTX *ctx, const td_config_t *config, tg_error_t *err)
{
    const char  *certificate, *key, *ca;

    certificate = config->listen.tls_certificate;
    key = config->listen.tls_key;
    ca = config->listen.tls_client_ca;

    if (SSL_CTX_use_certificate_chain_file(ctx, certificate) != 1) {
        td_tls_error(err, "use certificate", certificate);
        return -1;
    }

    if (SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) != 1) {
        td_tls_error(err, "use private key", key);
        return -1;
    }

    if (ca[0] == '\0') {
        return 0;
    }

    if (SSL_CTX_load_verify_file(ctx, ca) != 1) {
        td_tls_error(err, "use client CA", ca);
        return -1;
    }

    /* asked for, not demanded: bearer tokens work on the same listener */
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_client_CA_list(ctx, SSL_load_client_CA_file(ca));

    return 0;
}


SSL_CTX *
td_tls_create(const td_config_t *config, tg_error_t *err)
{
    SSL_CTX  *ctx;

    ctx = SSL_CTX_new(TLS_server_method());
    if (ctx == NULL) {
        td_tls_error(err, "make a context for",
                     config->listen.tls_certificate);
        return NULL;
    }

    SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION
                             | SSL_OP_CIPHER_SERVER_PREFERENCE
                             | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_session_id_context(ctx, td_tls_session_id,
                                   sizeof(td_tls_session_id) - 1);

    if (td_tls_load(ctx, config, err) != 0) {
        SSL_CTX_free(ctx);
        return NULL;
    }

    return ctx;
}


/* A name must be printable ASCII: then no NUL inside and one way to read it. */
static void
td_tls_add_name(td_tls_peer_t *peer, const ASN1_STRING *string)
{
    int                   i, len;
    const unsigned char  *data;

    data = ASN1_STRING_get0_data(string);
    len = ASN1_STRING_length(string);

    if (len == 0 || len > 255 || peer->names == TD_TLS_MAX_NAMES) {
        return;
    }

    for (i = 0; i < len; i++) {
        if (data[i] < 0x20 || data[i] > 0x7e) {
            return;
        }
    }

    peer->name[peer->names] = strndup((const char *) data, (size_t) len);
    if (peer->name[peer->names] != NULL) {
        peer->names++;
    }
}


static void
td_tls_add_names(td_tls_peer_t *peer, X509 *certificate)
{
    int                    i;
    X509_NAME             *subject;
    GENERAL_NAMES         *names;
    const GENERAL_NAME    *name;

    subject = X509_get_subject_name(certificate);
    i = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);

    if (i >= 0) {
        td_tls_add_name(peer,
            X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, i)));
    }

    names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);

    for (i = 0; names != NULL && i < sk_GENERAL_NAME_num(names); i++) {
        name = sk_GENERAL_NAME_value(names, i);
        if (name->type == GEN_URI) {
            td_tls_add_name(peer, name->d.uniformResourceIdentifier);
        }
    }

    GENERAL_NAMES_free(names);
}


int
td_tls_peer(SSL *ssl, td_tls_peer_t *peer)
{
    X509          *certificate;
    unsigned       i, len;
    unsigned char  digest[EVP_MAX_MD_SIZE];

    memset(peer, 0, sizeof(td_tls_peer_t));

    certificate = SSL_get1_peer_certificate(ssl);
    if (certificate == NULL) {
        return -1;
    }

    if (SSL_get_verify_result(ssl) != X509_V_OK
        || X509_digest(certificate, EVP_sha256(), digest, &len) != 1)
    {
        X509_free(certificate);
        return -1;
    }

    for (i = 0; i < len; i++) {
        snprintf(peer->sha256 + 2 * i, 3, "%02x", digest[i]);
    }

    td_tls_add_names(peer, certificate);
    X509_free(certificate);

    return 0;
}


void
td_tls_peer_clear(td_tls_peer_t *peer)
{
    while (peer->names > 0) {
        free(peer->name[--peer->names]);
    }
}
