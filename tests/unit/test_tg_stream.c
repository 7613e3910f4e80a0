/* SPDX-License-Identifier: BSD-2-Clause */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tg_stream.h"


#define HEAD  "HTTP/1.1 200 OK\r\n"


typedef struct {
    const char           *name;
    const char           *input;
    int                   status;
    const char           *body;
    tg_response_event_e   end;
    int                   keepalive;
} response_case_t;


static const response_case_t  responses[] = {
    { "length", HEAD "Content-Length: 5\r\n\r\nhello", 200, "hello",
      TG_RESPONSE_DONE, 1 },
    { "no body", "HTTP/1.1 204 No Content\r\n\r\n", 204, "",
      TG_RESPONSE_DONE, 1 },
    { "304 with a length", "HTTP/1.1 304 x\r\nContent-Length: 9\r\n\r\n", 304,
      "", TG_RESPONSE_DONE, 1 },
    { "empty", HEAD "Content-Length: 0\r\n\r\n", 200, "", TG_RESPONSE_DONE, 1 },
    { "no reason", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", 200, "",
      TG_RESPONSE_DONE, 1 },
    { "chunked", HEAD "Transfer-Encoding: chunked\r\n\r\n"
      "3\r\nabc\r\n0A;x=y\r\n0123456789\r\n0\r\n\r\n", 200, "abc0123456789",
      TG_RESPONSE_DONE, 1 },
    { "trailer", HEAD "transfer-encoding: Chunked\r\n\r\n"
      "1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n", 200, "a", TG_RESPONSE_DONE, 1 },
    { "interim", "HTTP/1.1 100 Continue\r\n\r\n" HEAD
      "Content-Length: 1\r\n\r\nx", 200, "x", TG_RESPONSE_DONE, 1 },
    { "close", HEAD "Connection: close\r\nContent-Length: 1\r\n\r\nx", 200, "x",
      TG_RESPONSE_DONE, 0 },
    { "until close", HEAD "\r\nabc", 200, "abc", TG_RESPONSE_DONE, 0 },
    { "1.0", "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", 200, "x",
      TG_RESPONSE_DONE, 0 },
    { "1.0 kept", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n"
      "Content-Length: 1\r\n\r\nx", 200, "x", TG_RESPONSE_DONE, 1 },
    { "blanks around the value", HEAD "Content-Length:\t 1 \t\r\n\r\nx", 200,
      "x", TG_RESPONSE_DONE, 1 },

    { "nothing", "", 0, "", TG_RESPONSE_ERROR, 0 },
    { "not HTTP", "SSH-2.0-x\r\n\r\n", 0, "", TG_RESPONSE_ERROR, 0 },
    { "HTTP/2", "HTTP/2 200\r\n\r\n", 0, "", TG_RESPONSE_ERROR, 0 },
    { "HTTP/1.2", "HTTP/1.2 200 OK\r\n\r\n", 0, "", TG_RESPONSE_ERROR, 0 },
    { "status of two digits", "HTTP/1.1 20 OK\r\n\r\n", 0, "",
      TG_RESPONSE_ERROR, 0 },
    { "status of four digits", "HTTP/1.1 2000 OK\r\n\r\n", 0, "",
      TG_RESPONSE_ERROR, 0 },
    { "status 600", "HTTP/1.1 600 OK\r\n\r\n", 0, "", TG_RESPONSE_ERROR, 0 },
    { "status 000", "HTTP/1.1 000 OK\r\n\r\n", 0, "", TG_RESPONSE_ERROR, 0 },
    { "upgrade", "HTTP/1.1 101 Switching\r\n\r\n", 0, "", TG_RESPONSE_ERROR,
      0 },
    { "interim with a body", "HTTP/1.1 103 x\r\nContent-Length: 1\r\n\r\nx", 0,
      "", TG_RESPONSE_ERROR, 0 },
    { "bare LF", "HTTP/1.1 200 OK\nContent-Length: 0\n\n", 0, "",
      TG_RESPONSE_ERROR, 0 },
    { "bare CR", HEAD "A: b\rc\r\n\r\n", 0, "", TG_RESPONSE_ERROR, 0 },
    { "folding", HEAD "A: b\r\n c\r\n\r\n", 0, "", TG_RESPONSE_ERROR, 0 },
    { "blank before the colon", HEAD "Content-Length : 1\r\n\r\nx", 0, "",
      TG_RESPONSE_ERROR, 0 },
    { "no colon", HEAD "nonsense\r\n\r\n", 0, "", TG_RESPONSE_ERROR, 0 },
    { "no name", HEAD ": x\r\n\r\n", 0, "", TG_RESPONSE_ERROR, 0 },
    { "control character", HEAD "A: b\001\r\n\r\n", 0, "", TG_RESPONSE_ERROR,
      0 },
    { "two lengths", HEAD "Content-Length: 1\r\nContent-Length: 1\r\n\r\nx", 0,
      "", TG_RESPONSE_ERROR, 0 },
    { "list of lengths", HEAD "Content-Length: 1, 1\r\n\r\nx", 0, "",
      TG_RESPONSE_ERROR, 0 },
    { "signed length", HEAD "Content-Length: +1\r\n\r\nx", 0, "",
      TG_RESPONSE_ERROR, 0 },
    { "negative length", HEAD "Content-Length: -1\r\n\r\nx", 0, "",
      TG_RESPONSE_ERROR, 0 },
    { "empty length", HEAD "Content-Length:\r\n\r\nx", 0, "",
      TG_RESPONSE_ERROR, 0 },
    { "huge length", HEAD "Content-Length: 99999999999999999999\r\n\r\nx", 0,
      "", TG_RESPONSE_ERROR, 0 },
    { "length and chunked", HEAD "Content-Length: 1\r\n"
      "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", 0, "",
      TG_RESPONSE_ERROR, 0 },
    { "gzip", HEAD "Transfer-Encoding: gzip, chunked\r\n\r\n", 0, "",
      TG_RESPONSE_ERROR, 0 },
    { "chunked twice", HEAD "Transfer-Encoding: chunked\r\n"
      "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0, "",
      TG_RESPONSE_ERROR, 0 },
    { "chunked in 1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
      "0\r\n\r\n", 0, "", TG_RESPONSE_ERROR, 0 },
    { "short body", HEAD "Content-Length: 5\r\n\r\nhell", 200, "hell",
      TG_RESPONSE_ERROR, 1 },
    { "no last chunk", HEAD "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n", 200,
      "a", TG_RESPONSE_ERROR, 1 },
    { "chunk without a size", HEAD "Transfer-Encoding: chunked\r\n\r\n\r\na",
      200, "", TG_RESPONSE_ERROR, 1 },
    { "chunk size of words", HEAD "Transfer-Encoding: chunked\r\n\r\nzz\r\na",
      200, "", TG_RESPONSE_ERROR, 1 },
    { "chunk size 0x", HEAD "Transfer-Encoding: chunked\r\n\r\n0x1\r\na",
      200, "", TG_RESPONSE_ERROR, 1 },
    { "chunk size overflow", HEAD "Transfer-Encoding: chunked\r\n\r\n"
      "10000000000000001\r\na", 200, "", TG_RESPONSE_ERROR, 1 },
    { "chunk longer than said", HEAD "Transfer-Encoding: chunked\r\n\r\n"
      "1\r\nab\r\n0\r\n\r\n", 200, "a", TG_RESPONSE_ERROR, 1 },
    { "registry that is none", HEAD "Tiergate-Registry: abc\r\n\r\n", 0, "",
      TG_RESPONSE_ERROR, 0 },
};


/* Feeds input in pieces of step bytes; gathers the body. */
static tg_response_event_e
feed(tg_response_t *r, const char *input, size_t size, size_t step, char *out)
{
    size_t               n, len;
    const char          *pos, *end, *body;
    tg_response_event_e  event;

    tg_response_init(r);
    event = TG_RESPONSE_MORE;
    *out = '\0';

    for (size_t at = 0; at < size; at += n) {
        n = size - at < step ? size - at : step;
        pos = input + at;
        end = pos + n;

        do {
            event = tg_response_next(r, &pos, end, &body, &len);

            if (event == TG_RESPONSE_BODY) {
                assert_true(body >= input + at && body + len <= end);
                strncat(out, body, len);
            }
        } while (event == TG_RESPONSE_READY || event == TG_RESPONSE_BODY);

        if (event != TG_RESPONSE_MORE) {
            return event;
        }
    }

    return tg_response_eof(r);
}


static void
test_responses(void **state)
{
    char                    out[128];
    tg_response_t           r;
    tg_response_event_e     end;
    const response_case_t  *c;

    (void) state;

    for (size_t i = 0; i < sizeof(responses) / sizeof(responses[0]); i++) {
        c = &responses[i];

        for (size_t step = 1; step <= strlen(c->input) + 1; step++) {
            end = feed(&r, c->input, strlen(c->input), step, out);

            if (end != c->end || strcmp(out, c->body) != 0
                || (c->status && r.status != c->status)
                || (c->status && r.keepalive != c->keepalive)
                || (end == TG_RESPONSE_ERROR) != (r.error != NULL))
            {
                fail_msg("%s, %zu at a time: event %d, status %d, body \"%s\", "
                         "error \"%s\"", c->name, step, end, r.status, out,
                         r.error ? r.error : "");
            }
        }
    }
}


static void
test_headers(void **state)
{
    char               out[16];
    tg_response_t      r;
    static const char  input[] = HEAD
        "Content-Type: application/jsonl; charset=utf-8\r\n"
        "Tiergate-Registry: 0F8FAD5B-d9cb-469f-a165-70867728950e\r\n"
        "Retry-After: 7\r\nContent-Length: 0\r\n\r\n";

    (void) state;

    assert_int_equal(feed(&r, input, sizeof(input) - 1, 9, out),
                     TG_RESPONSE_DONE);
    assert_true(r.jsonl);
    assert_string_equal(r.registry, "0f8fad5b-d9cb-469f-a165-70867728950e");
    assert_int_equal(r.retry_after, 7);
}


static void
test_content_types(void **state)
{
    char           out[16], input[128];
    tg_response_t  r;
    static const struct {
        const char  *type;
        int          jsonl;
    } types[] = {
        { "application/jsonl", 1 },
        { "Application/JSONL;x=1", 1 },
        { "application/jsonlines", 0 },
        { "application/json", 0 },
        { "text/html", 0 },
        { "", 0 },
    };

    (void) state;

    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        snprintf(input, sizeof(input), HEAD "Content-Type: %s\r\n"
                 "Content-Length: 0\r\n\r\n", types[i].type);
        assert_int_equal(feed(&r, input, strlen(input), 1000, out),
                         TG_RESPONSE_DONE);
        assert_int_equal(r.jsonl, types[i].jsonl);
    }
}


static void
test_head_limits(void **state)
{
    char            out[16], *input, *p;
    tg_response_t   r;

    (void) state;

    input = malloc(2 * TG_RESPONSE_HEAD);
    assert_non_null(input);

    /* one line too long */
    p = input + sprintf(input, HEAD "A: ");
    memset(p, 'x', TG_RESPONSE_LINE);
    assert_int_equal(feed(&r, input, (size_t) (p - input) + TG_RESPONSE_LINE,
                          1000, out), TG_RESPONSE_ERROR);
    assert_string_equal(r.error, "head too long");

    /* too many lines */
    p = input + sprintf(input, HEAD);

    while (p - input < TG_RESPONSE_HEAD + 100) {
        p += sprintf(p, "Abcdefgh: x\r\n");
    }

    assert_int_equal(feed(&r, input, (size_t) (p - input), 1000, out),
                     TG_RESPONSE_ERROR);
    assert_string_equal(r.error, "head too long");

    free(input);
}


/* What follows a response stays where it is. */
static void
test_stops_at_the_end(void **state)
{
    size_t         len;
    const char    *pos, *end, *body;
    tg_response_t  r;
    const char     input[] = HEAD "Content-Length: 0\r\n\r\nHTTP/1.1 500";

    (void) state;

    tg_response_init(&r);
    assert_true(tg_response_untouched(&r));

    pos = input;
    end = input + sizeof(input) - 1;

    assert_int_equal(tg_response_next(&r, &pos, end, &body, &len),
                     TG_RESPONSE_READY);
    assert_false(tg_response_untouched(&r));
    assert_int_equal(tg_response_next(&r, &pos, end, &body, &len),
                     TG_RESPONSE_DONE);
    assert_int_equal(tg_response_next(&r, &pos, end, &body, &len),
                     TG_RESPONSE_DONE);
    assert_string_equal(pos, "HTTP/1.1 500");
}


static void
test_uuid(void **state)
{
    char               uuid[37];
    static const char *const  bad[] = {
        "", "0f8fad5b-d9cb-469f-a165-70867728950", "0f8fad5bd9cb469fa16570867728950e",
        "0f8fad5b-d9cb-469f-a165-70867728950g", "0f8fad5b-d9cb-469f-a165-70867728950e0",
        "0f8fad5b_d9cb-469f-a165-70867728950e",
    };

    (void) state;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(tg_uuid_copy(uuid, bad[i], strlen(bad[i])), -1);
        assert_string_equal(uuid, "");
    }
}


/* Cuts input into lines, given step bytes at a time; "!" marks a long one. */
static void
cut(const char *input, size_t size, size_t step, size_t max, char *out)
{
    size_t            n, len;
    const char       *pos, *end, *line;
    tg_lines_t        lines;
    tg_lines_event_e  event;

    tg_lines_init(&lines, max);
    *out = '\0';

    for (size_t at = 0; at < size; at += n) {
        n = size - at < step ? size - at : step;
        pos = input + at;
        end = pos + n;

        for ( ;; ) {
            event = tg_lines_next(&lines, &pos, end, &line, &len);

            if (event == TG_LINES_MORE) {
                break;
            }

            assert_int_not_equal(event, TG_LINES_NOMEM);
            strncat(out, line, len);
            strcat(out, event == TG_LINES_TOO_LONG ? "!" : "|");
        }
    }

    assert_int_equal(tg_lines_idle(&lines),
                     size == 0 || input[size - 1] == '\n');
    tg_lines_free(&lines);
}


static void
test_lines(void **state)
{
    char  out[128];
    static const struct {
        const char  *input;
        size_t       max;
        const char  *lines;
    } cases[] = {
        { "", 9, "" },
        { "a", 9, "" },
        { "a\n", 9, "a|" },
        { "\n\n", 9, "||" },
        { "abc\nde\nf", 9, "abc|de|" },
        { "abc\r\nd\n", 9, "abc\r|d|" },
        { "123456789\nx\n", 9, "123456789|x|" },
        { "1234567890\nx\n", 9, "123456789!x|" },
        { "12345678901234567890\n\nx\n", 9, "123456789!|x|" },
        { "1234567890", 9, "123456789!" },
        { "a\n123456\n1234567\nb\n", 5, "a|12345!12345!b|" },
    };

    (void) state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (size_t step = 1; step <= strlen(cases[i].input) + 1; step++) {
            cut(cases[i].input, strlen(cases[i].input), step, cases[i].max,
                out);
            assert_string_equal(out, cases[i].lines);
        }
    }
}


static void
test_lines_reset(void **state)
{
    size_t       len;
    const char  *pos, *line;
    tg_lines_t   lines;

    (void) state;

    tg_lines_init(&lines, 5);

    pos = "123";
    assert_int_equal(tg_lines_next(&lines, &pos, pos + 3, &line, &len),
                     TG_LINES_MORE);
    assert_false(tg_lines_idle(&lines));

    tg_lines_reset(&lines);
    assert_true(tg_lines_idle(&lines));

    pos = "ab\n";
    assert_int_equal(tg_lines_next(&lines, &pos, pos + 3, &line, &len),
                     TG_LINES_LINE);
    assert_int_equal(len, 2);
    assert_memory_equal(line, "ab", 2);

    tg_lines_free(&lines);
}


/* A line of the full length, through small reads. */
static void
test_lines_large(void **state)
{
    char        *input;
    size_t       n, len, count;
    const char  *pos, *end, *line;
    tg_lines_t   lines;

    (void) state;

    input = malloc(TG_LINE_MAX + 1);
    assert_non_null(input);
    memset(input, 'x', TG_LINE_MAX);
    input[TG_LINE_MAX] = '\n';

    tg_lines_init(&lines, TG_LINE_MAX);
    count = 0;

    for (size_t at = 0; at < TG_LINE_MAX + 1; at += n) {
        n = TG_LINE_MAX + 1 - at < 65536 ? TG_LINE_MAX + 1 - at : 65536;
        pos = input + at;
        end = pos + n;

        while (tg_lines_next(&lines, &pos, end, &line, &len) == TG_LINES_LINE) {
            assert_int_equal(len, TG_LINE_MAX);
            count++;
        }
    }

    assert_int_equal(count, 1);
    assert_null(lines.data);        /* given back */

    tg_lines_free(&lines);
    free(input);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_responses),
        cmocka_unit_test(test_headers),
        cmocka_unit_test(test_content_types),
        cmocka_unit_test(test_head_limits),
        cmocka_unit_test(test_stops_at_the_end),
        cmocka_unit_test(test_uuid),
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_lines_reset),
        cmocka_unit_test(test_lines_large),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
