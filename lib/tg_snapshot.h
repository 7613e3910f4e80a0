/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The snapshot: what a gateway knows, on disk, so that it can start without
 * tenantd.  One file of JSON Lines that only grows until it is written anew:
 *
 *     {"tiergate_snapshot":1,"registry":"UUID","gateway":"shared-1"}
 *     ["8b1a9953c4611296","PUT","tenant",17,{"type":"PUT",...}]
 *     ["0d3f19e2a0b51c44","DELETE","tenant",4,{"type":"DELETE",...}]
 *     ["5f2b51ca2fdc5baa","BOOKMARK","",92,{"type":"BOOKMARK",...}]
 *
 *  1. The last member of a record is the watch stream's line, byte for byte.
 *     The others let a reader find its way without parsing it; the number is
 *     the object's id, or the BOOKMARK's revision.
 *  2. The first member begins the hex form of SHA-256 over the digest of the
 *     line before and the rest of this line, so it covers all that is above it.
 *     The header has none: its digest is SHA-256 of the whole line.
 *  3. Only a BOOKMARK makes what is above it valid.  A file that was torn (its
 *     last line is incomplete or wrong) is good up to the last BOOKMARK above
 *     that; with damage anywhere else it is good for nothing.
 *  4. An object is what its last record says.
 *
 * The digest guards against torn and rotten files, not against somebody who can
 * write them: what is read is checked as if it came from the network.
 */

#ifndef TG_SNAPSHOT_H
#define TG_SNAPSHOT_H

#include <stddef.h>
#include <stdint.h>

#include <openssl/evp.h>

#include "tg_error.h"
#include "tg_stream.h"
#include "tg_text.h"
#include "tg_watch.h"

#define TG_SNAPSHOT_DIGEST   32
#define TG_SNAPSHOT_GATEWAY  63     /* bytes of a gateway's name */

/* Bytes of a line of the file: the stream's line, and ours around it. */
#define TG_SNAPSHOT_LINE     (TG_LINE_MAX + 128)

/* Digest of all lines so far, and what it takes to go on. */
typedef struct {
    uint8_t      digest[TG_SNAPSHOT_DIGEST];
    EVP_MD_CTX  *ctx;
    EVP_MD      *md;
} tg_chain_t;

/* Returns 0, or -1: OpenSSL failed. */
int tg_chain_init(tg_chain_t *chain);
void tg_chain_free(tg_chain_t *chain);

/* Beside tg_kind_e: what a quota has counted.  In a file of its own. */
#define TG_RECORD_QUOTA  3

typedef struct {
    tg_watch_type_e  type;
    int              kind;      /* tg_kind_e, TG_RECORD_QUOTA; 0 with BOOKMARK */
    uint64_t         number;    /* id, or the BOOKMARK's revision */
    const char      *line;      /* inside the record that was read */
    size_t           len;
} tg_record_t;

/* "tenant", "issuer", "quota". */
const char *tg_record_kind_name(int kind);

/*
 * Add the header, or a record, with its newline, and take the chain on.  Return
 * 0, or -1: OpenSSL failed or no memory; then text and chain are of no use.
 */
int tg_snapshot_header(tg_text_t *out, tg_chain_t *chain, const char *registry,
    const char *gateway);
int tg_snapshot_record(tg_text_t *out, tg_chain_t *chain,
    const tg_record_t *record);

/* Takes a record (line without newline) apart; does not look at the digest.
 * 0, or -1: not one. */
int tg_snapshot_parse(const char *line, size_t len, tg_record_t *record);


/* Where the last record of an object is. */
typedef struct {
    uint64_t  offset;       /* of its line in the file */
    uint32_t  len;          /* without newline; 0: superseded or deleted */
    uint32_t  kind;
    uint64_t  id;
} tg_snapshot_entry_t;

typedef struct tg_snapshot_scan_s  tg_snapshot_scan_t;

typedef enum {
    TG_SCAN_OK = 0,
    TG_SCAN_DAMAGED,        /* nothing from this line on is of use */
    TG_SCAN_NOMEM
} tg_scan_status_e;

/* What a scan has found, as of the last BOOKMARK. */
typedef struct {
    char                        registry[37];
    char                        gateway[TG_SNAPSHOT_GATEWAY + 1];
    int                         valid;      /* there was a BOOKMARK */
    uint64_t                    revision;
    uint64_t                    size;       /* bytes up to its end */
    uint8_t                     digest[TG_SNAPSHOT_DIGEST];
    const tg_snapshot_entry_t  *entries;    /* in the order of the file */
    size_t                      nentries;   /* superseded ones included */
    size_t                      objects;    /* without them */
    uint64_t                    bytes;      /* of the lines of the objects */
} tg_scan_result_t;

/* NULL: no memory. */
tg_snapshot_scan_t *tg_snapshot_scan_create(void);
void tg_snapshot_scan_destroy(tg_snapshot_scan_t *scan);

/* Takes the next line of the file, without its newline. */
tg_scan_status_e tg_snapshot_scan_line(tg_snapshot_scan_t *scan,
    const char *line, size_t len, tg_error_t *err);

/* Valid until the scan goes on or is destroyed. */
void tg_snapshot_scan_result(const tg_snapshot_scan_t *scan,
    tg_scan_result_t *result);

/* The entry of an object, as of the last BOOKMARK; NULL: there is none. */
const tg_snapshot_entry_t *tg_snapshot_scan_find(const tg_snapshot_scan_t *scan,
    int kind, uint64_t id);

/* Bytes of the lines taken so far. */
uint64_t tg_snapshot_scan_offset(const tg_snapshot_scan_t *scan);

#endif /* TG_SNAPSHOT_H */
