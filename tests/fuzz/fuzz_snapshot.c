/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * A snapshot file.  A first byte of "+" has the digests made right, so that the
 * fuzzer gets past them.
 */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tg_snapshot.h"


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


/* A line as the writer would have put it, or as it is. */
static tg_scan_status_e
scan_line(tg_snapshot_scan_t *scan, tg_chain_t *chain, tg_text_t *text,
    const char *line, size_t len, int repair)
{
    tg_record_t  record;

    if (!repair || tg_snapshot_parse(line, len, &record) != 0) {
        return tg_snapshot_scan_line(scan, line, len, NULL);
    }

    tg_text_reset(text);

    if (tg_snapshot_record(text, chain, &record) != 0) {
        abort();
    }

    return tg_snapshot_scan_line(scan, text->data, text->len - 1, NULL);
}


static void
check(const tg_scan_result_t *result, uint64_t offset)
{
    size_t    objects;
    uint64_t  bytes;

    objects = 0;
    bytes = 0;

    for (size_t i = 0; i < result->nentries; i++) {
        objects += result->entries[i].len != 0;
        bytes += result->entries[i].len;

        if (result->entries[i].offset + result->entries[i].len > result->size) {
            abort();
        }
    }

    if (objects != result->objects || bytes != result->bytes
        || result->size > offset || (!result->valid && result->nentries))
    {
        abort();
    }
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int                  repair;
    const char          *p, *end, *lf;
    tg_text_t            text;
    tg_chain_t           chain;
    tg_scan_result_t     result;
    tg_snapshot_scan_t  *scan;

    p = (const char *) data;
    end = p + size;
    repair = size > 0 && *p == '+';
    p += repair;

    tg_text_init(&text);
    scan = tg_snapshot_scan_create();

    if (scan == NULL || tg_chain_init(&chain) != 0) {
        abort();
    }

    if (repair) {
        if (tg_snapshot_header(&text, &chain,
                               "0f8fad5b-d9cb-469f-a165-70867728950e", "g") != 0
            || tg_snapshot_scan_line(scan, text.data, text.len - 1, NULL)
               != TG_SCAN_OK)
        {
            abort();
        }
    }

    for ( /* void */ ; p < end; p = lf + 1) {
        lf = memchr(p, '\n', (size_t) (end - p));

        if (lf == NULL
            || scan_line(scan, &chain, &text, p, (size_t) (lf - p), repair)
               != TG_SCAN_OK)
        {
            break;
        }
    }

    tg_snapshot_scan_result(scan, &result);
    check(&result, tg_snapshot_scan_offset(scan));

    tg_snapshot_scan_destroy(scan);
    tg_chain_free(&chain);
    tg_text_free(&text);

    return 0;
}
