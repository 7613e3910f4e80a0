/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * A response of tenantd, cut into reads.  The first byte of the input says how
 * long these are.  However it is cut, the outcome must be the same.
 */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tg_stream.h"


#define LINE_MAX  64


typedef struct {
    int       event;
    int       status;
    uint64_t  digest;       /* of the lines, and where they end */
} outcome_t;


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static void
digest(outcome_t *outcome, const char *p, size_t len, int mark)
{
    for (size_t i = 0; i < len; i++) {
        outcome->digest = (outcome->digest ^ (uint8_t) p[i]) * 0x100000001b3;
    }

    outcome->digest = (outcome->digest ^ (uint64_t) (mark + 256))
                      * 0x100000001b3;
}


static void
take(outcome_t *outcome, tg_lines_t *lines, const char *body, size_t len)
{
    size_t            n;
    const char       *pos, *line;
    tg_lines_event_e  event;

    pos = body;

    for ( ;; ) {
        event = tg_lines_next(lines, &pos, body + len, &line, &n);

        if (event == TG_LINES_MORE) {
            break;
        }

        if (event == TG_LINES_NOMEM || n > LINE_MAX) {
            abort();
        }

        digest(outcome, line, n, event);
    }

    if (pos != body + len) {
        abort();
    }
}


static outcome_t
feed(const char *data, size_t size, size_t step)
{
    size_t         n, len;
    const char    *pos, *body;
    outcome_t      outcome;
    tg_lines_t     lines;
    tg_response_t  response;

    memset(&outcome, 0, sizeof(outcome));
    tg_lines_init(&lines, LINE_MAX);
    tg_response_init(&response);
    outcome.event = TG_RESPONSE_MORE;

    for (size_t at = 0; at < size && outcome.event == TG_RESPONSE_MORE; at += n)
    {
        n = size - at < step ? size - at : step;
        pos = data + at;

        do {
            outcome.event = tg_response_next(&response, &pos, data + at + n,
                                             &body, &len);

            if (outcome.event == TG_RESPONSE_BODY) {
                take(&outcome, &lines, body, len);
            }
        } while (outcome.event == TG_RESPONSE_READY
                 || outcome.event == TG_RESPONSE_BODY);
    }

    if (outcome.event == TG_RESPONSE_MORE) {
        outcome.event = tg_response_eof(&response);
    }

    if ((outcome.event == TG_RESPONSE_ERROR) != (response.error != NULL)) {
        abort();
    }

    outcome.status = response.status;
    tg_lines_free(&lines);

    return outcome;
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    outcome_t  whole, cut;

    if (size < 1) {
        return 0;
    }

    whole = feed((const char *) data + 1, size - 1, size);
    cut = feed((const char *) data + 1, size - 1, (size_t) (data[0] % 32 + 1));

    if (whole.event != cut.event || whole.digest != cut.digest
        || whole.status != cut.status)
    {
        abort();
    }

    return 0;
}
