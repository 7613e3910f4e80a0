/* SPDX-License-Identifier: BSD-2-Clause */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tg_snapshot.h"


#define REGISTRY  "0f8fad5b-d9cb-469f-a165-70867728950e"


typedef struct {
    tg_text_t   text;
    tg_chain_t  chain;
} file_t;


static void
file_begin(file_t *file)
{
    tg_text_init(&file->text);
    assert_int_equal(tg_chain_init(&file->chain), 0);
    assert_int_equal(tg_snapshot_header(&file->text, &file->chain, REGISTRY,
                                        "shared-1"), 0);
}


static void
file_end(file_t *file)
{
    tg_text_free(&file->text);
    tg_chain_free(&file->chain);
}


static void
file_add(file_t *file, tg_watch_type_e type, int kind, uint64_t number,
    const char *line)
{
    tg_record_t  record;

    record.type = type;
    record.kind = kind;
    record.number = number;
    record.line = line;
    record.len = strlen(line);

    assert_int_equal(tg_snapshot_record(&file->text, &file->chain, &record), 0);
}


/*
 * base: tenants 1, 2, issuer 1; BOOKMARK 10
 * then: tenant 2 anew, tenant 1 gone, tenant 3; BOOKMARK 12
 * then: tenant 4, without a BOOKMARK
 */
static void
file_example(file_t *file)
{
    file_begin(file);
    file_add(file, TG_WATCH_PUT, TG_KIND_ISSUER, 1, "{\"i\":1}");
    file_add(file, TG_WATCH_PUT, TG_KIND_TENANT, 1, "{\"t\":1}");
    file_add(file, TG_WATCH_PUT, TG_KIND_TENANT, 2, "{\"t\":2}");
    file_add(file, TG_WATCH_BOOKMARK, 0, 10, "{}");
    file_add(file, TG_WATCH_PUT, TG_KIND_TENANT, 2, "{\"t\":\"two\"}");
    file_add(file, TG_WATCH_DELETE, TG_KIND_TENANT, 1, "{\"t\":null}");
    file_add(file, TG_WATCH_PUT, TG_KIND_TENANT, 3, "{\"t\":3}");
    file_add(file, TG_WATCH_BOOKMARK, 0, 12, "{}");
    file_add(file, TG_WATCH_PUT, TG_KIND_TENANT, 4, "{\"t\":4}");
}


/* Scans to the end or the first damage; a torn last line is not given. */
static tg_scan_status_e
scan_file(tg_snapshot_scan_t *scan, const char *data, size_t len)
{
    const char        *p, *lf;
    tg_error_t         err;
    tg_scan_status_e   status;

    status = TG_SCAN_OK;

    for (p = data; status == TG_SCAN_OK; p = lf + 1) {
        lf = memchr(p, '\n', (size_t) (data + len - p));

        if (lf == NULL) {
            break;
        }

        err.message[0] = '\0';
        status = tg_snapshot_scan_line(scan, p, (size_t) (lf - p), &err);
        assert_true((status == TG_SCAN_DAMAGED) == (err.message[0] != '\0'));
    }

    return status;
}


/* The objects that a scan left, as one string. */
static void
objects(const tg_scan_result_t *result, const char *data, char *out)
{
    const tg_snapshot_entry_t  *entry;

    *out = '\0';

    for (size_t i = 0; i < result->nentries; i++) {
        entry = &result->entries[i];

        if (entry->len) {
            sprintf(out + strlen(out), "%s/%d %.*s ",
                    tg_watch_kind_name((int) entry->kind), (int) entry->id,
                    (int) entry->len, data + entry->offset);
        }
    }
}


static void
test_round_trip(void **state)
{
    char                 out[256];
    file_t               file;
    tg_scan_result_t     result;
    tg_snapshot_scan_t  *scan;

    (void) state;

    file_example(&file);
    scan = tg_snapshot_scan_create();
    assert_non_null(scan);

    assert_int_equal(scan_file(scan, file.text.data, file.text.len),
                     TG_SCAN_OK);
    tg_snapshot_scan_result(scan, &result);

    assert_true(result.valid);
    assert_string_equal(result.registry, REGISTRY);
    assert_string_equal(result.gateway, "shared-1");
    assert_int_equal(result.revision, 12);
    assert_int_equal(result.objects, 3);

    objects(&result, file.text.data, out);
    assert_string_equal(out, "issuer/1 {\"i\":1} tenant/2 {\"t\":\"two\"} "
                             "tenant/3 {\"t\":3} ");
    assert_int_equal(result.bytes, 7 + 11 + 7);
    assert_int_equal(tg_snapshot_scan_offset(scan), file.text.len);

    tg_snapshot_scan_destroy(scan);
    file_end(&file);
}


/* A writer goes on where the last BOOKMARK was. */
static void
test_append(void **state)
{
    char                 out[256];
    file_t               file;
    tg_scan_result_t     result;
    tg_snapshot_scan_t  *scan;

    (void) state;

    file_example(&file);
    scan = tg_snapshot_scan_create();
    (void) scan_file(scan, file.text.data, file.text.len);
    tg_snapshot_scan_result(scan, &result);

    file.text.len = result.size;
    memcpy(file.chain.digest, result.digest, TG_SNAPSHOT_DIGEST);
    tg_snapshot_scan_destroy(scan);

    file_add(&file, TG_WATCH_PUT, TG_KIND_TENANT, 5, "{\"t\":5}");
    file_add(&file, TG_WATCH_DELETE, TG_KIND_TENANT, 99, "{}");
    file_add(&file, TG_WATCH_BOOKMARK, 0, 13, "{}");

    scan = tg_snapshot_scan_create();
    assert_int_equal(scan_file(scan, file.text.data, file.text.len),
                     TG_SCAN_OK);
    tg_snapshot_scan_result(scan, &result);
    assert_int_equal(result.revision, 13);
    objects(&result, file.text.data, out);
    assert_string_equal(out, "issuer/1 {\"i\":1} tenant/2 {\"t\":\"two\"} "
                             "tenant/3 {\"t\":3} tenant/5 {\"t\":5} ");

    tg_snapshot_scan_destroy(scan);
    file_end(&file);
}


/* What a file is worth that was cut, or has a wrong byte, at offset at. */
static void
check_damage(const char *data, size_t len, size_t at, size_t base, size_t tail)
{
    tg_scan_result_t     result;
    tg_snapshot_scan_t  *scan;

    scan = tg_snapshot_scan_create();
    (void) scan_file(scan, data, len);
    tg_snapshot_scan_result(scan, &result);

    assert_int_equal(result.valid, at >= base);
    assert_int_equal(result.revision, at < base ? 0 : at < tail ? 10 : 12);
    assert_int_equal(result.size, at < base ? 0 : at < tail ? base : tail);

    tg_snapshot_scan_destroy(scan);
}


static void
test_damage(void **state)
{
    char    *copy;
    file_t   file;
    size_t   base, tail;

    (void) state;

    file_example(&file);
    copy = malloc(file.text.len + 1);
    memcpy(copy, file.text.data, file.text.len);
    copy[file.text.len] = '\0';

    base = (size_t) (strchr(strstr(copy, "BOOKMARK"), '\n') + 1 - copy);
    tail = (size_t) (strchr(strstr(copy + base, "BOOKMARK"), '\n') + 1 - copy);

    for (size_t at = 0; at < file.text.len; at++) {
        check_damage(copy, at, at, base, tail);

        for (int bit = 0; bit < 8; bit++) {
            copy[at] ^= (char) (1 << bit);
            check_damage(copy, file.text.len, at, base, tail);
            copy[at] ^= (char) (1 << bit);
        }
    }

    free(copy);
    file_end(&file);
}


/* Whole lines taken out, doubled or exchanged are damage too. */
static void
test_lines_moved(void **state)
{
    char                 copy[2048], *line[16];
    size_t               n;
    file_t               file;
    tg_scan_result_t     result;
    tg_snapshot_scan_t  *scan;

    (void) state;

    file_example(&file);
    memcpy(copy, file.text.data, file.text.len);
    n = 0;

    for (char *p = copy; p < copy + file.text.len; p = strchr(p, '\n') + 1) {
        line[n++] = p;
    }

    line[n] = copy + file.text.len;

    scan = tg_snapshot_scan_create();
    assert_int_equal(scan_file(scan, line[0], (size_t) (line[2] - line[0])),
                     TG_SCAN_OK);
    assert_int_equal(scan_file(scan, line[3], (size_t) (line[4] - line[3])),
                     TG_SCAN_DAMAGED);      /* line 2 left out */
    tg_snapshot_scan_destroy(scan);

    scan = tg_snapshot_scan_create();
    assert_int_equal(scan_file(scan, line[0], (size_t) (line[5] - line[0])),
                     TG_SCAN_OK);
    assert_int_equal(scan_file(scan, line[4], (size_t) (line[5] - line[4])),
                     TG_SCAN_DAMAGED);      /* line 4 twice */
    tg_snapshot_scan_result(scan, &result);
    assert_int_equal(result.revision, 10);
    tg_snapshot_scan_destroy(scan);

    file_end(&file);
}


static void
test_headers(void **state)
{
    tg_error_t           err;
    tg_snapshot_scan_t  *scan;
    static const char *const  refused[] = {
        "",
        "{}",
        "[]",
        "{\"tiergate_snapshot\":2,\"registry\":\"" REGISTRY
        "\",\"gateway\":\"g\"}",
        "{\"tiergate_snapshot\":\"1\",\"registry\":\"" REGISTRY
        "\",\"gateway\":\"g\"}",
        "{\"tiergate_snapshot\":1,\"registry\":\"x\",\"gateway\":\"g\"}",
        "{\"tiergate_snapshot\":1,\"registry\":null,\"gateway\":\"g\"}",
        "{\"tiergate_snapshot\":1,\"registry\":\"" REGISTRY "\"}",
        "{\"tiergate_snapshot\":1,\"registry\":\"" REGISTRY
        "\",\"gateway\":\"\"}",
        "{\"tiergate_snapshot\":1,\"registry\":\"" REGISTRY
        "\",\"gateway\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
        "aaaaaaaaaaa\"}",
    };

    (void) state;

    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        scan = tg_snapshot_scan_create();
        assert_int_equal(tg_snapshot_scan_line(scan, refused[i],
                                               strlen(refused[i]), &err),
                         TG_SCAN_DAMAGED);
        tg_snapshot_scan_destroy(scan);
    }
}


static void
test_records(void **state)
{
    tg_record_t  record;
    static const char  good[] =
        "[\"0123456789abcdef\",\"PUT\",\"tenant\",17,{\"x\":[1]}]";
    static const char *const  refused[] = {
        "",
        "[]",
        "[\"0123456789abcdef\"]",
        "[\"0123456789abcde\",\"PUT\",\"tenant\",17,{}]",
        "[\"0123456789abcdef\",\"PATCH\",\"tenant\",17,{}]",
        "[\"0123456789abcdef\",\"PUT\",\"\",17,{}]",
        "[\"0123456789abcdef\",\"PUT\",\"mesh\",17,{}]",
        "[\"0123456789abcdef\",\"PUT\",tenant,17,{}]",
        "[\"0123456789abcdef\",\"BOOKMARK\",\"tenant\",17,{}]",
        "[\"0123456789abcdef\",\"BOOKMARK\",\"mesh\",17,{}]",
        "[\"0123456789abcdef\",\"PUT\",\"tenant\",,{}]",
        "[\"0123456789abcdef\",\"PUT\",\"tenant\",-1,{}]",
        "[\"0123456789abcdef\",\"PUT\",\"tenant\",1e3,{}]",
        "[\"0123456789abcdef\",\"PUT\",\"tenant\",99999999999999999999,{}]",
        "[\"0123456789abcdef\",\"PUT\",\"tenant\",17,[]]",
        "[\"0123456789abcdef\",\"PUT\",\"tenant\",17,{]",
        "[\"0123456789abcdef\",\"PUT\",\"tenant\",17,{}",
        "[\"0123456789abcdef\",\"PUT\",\"tenant\",17,{}] ",
        "[ \"0123456789abcdef\",\"PUT\",\"tenant\",17,{}]",
    };

    (void) state;

    assert_int_equal(tg_snapshot_parse(good, sizeof(good) - 1, &record), 0);
    assert_int_equal(record.type, TG_WATCH_PUT);
    assert_int_equal(record.kind, TG_KIND_TENANT);
    assert_int_equal(record.number, 17);
    assert_int_equal(record.len, 9);
    assert_memory_equal(record.line, "{\"x\":[1]}", 9);

    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        if (tg_snapshot_parse(refused[i], strlen(refused[i]), &record) == 0) {
            fail_msg("accepted: %s", refused[i]);
        }
    }
}


static void
test_quota_records(void **state)
{
    file_t               file;
    tg_scan_result_t     result;
    tg_snapshot_scan_t  *scan;

    (void) state;

    scan = tg_snapshot_scan_create();
    assert_null(tg_snapshot_scan_find(scan, TG_RECORD_QUOTA, 5));

    file_begin(&file);
    file_add(&file, TG_WATCH_PUT, TG_RECORD_QUOTA, 5, "{\"q\":5}");
    file_add(&file, TG_WATCH_BOOKMARK, 0, 1, "{}");

    assert_int_equal(scan_file(scan, file.text.data, file.text.len),
                     TG_SCAN_OK);
    tg_snapshot_scan_result(scan, &result);
    assert_int_equal(result.objects, 1);
    assert_non_null(tg_snapshot_scan_find(scan, TG_RECORD_QUOTA, 5));
    assert_null(tg_snapshot_scan_find(scan, TG_KIND_TENANT, 5));

    tg_snapshot_scan_destroy(scan);
    file_end(&file);
}


static void
test_revision_goes_back(void **state)
{
    file_t               file;
    tg_scan_result_t     result;
    tg_snapshot_scan_t  *scan;

    (void) state;

    file_begin(&file);
    file_add(&file, TG_WATCH_BOOKMARK, 0, 7, "{}");
    file_add(&file, TG_WATCH_BOOKMARK, 0, 6, "{}");

    scan = tg_snapshot_scan_create();
    assert_int_equal(scan_file(scan, file.text.data, file.text.len),
                     TG_SCAN_DAMAGED);
    tg_snapshot_scan_result(scan, &result);
    assert_true(result.valid);
    assert_int_equal(result.revision, 7);

    tg_snapshot_scan_destroy(scan);
    file_end(&file);
}


/* The index is right when it has grown many times. */
static void
test_many(void **state)
{
    file_t               file;
    tg_scan_result_t     result;
    tg_snapshot_scan_t  *scan;
    const uint64_t       n = 20000;

    (void) state;

    file_begin(&file);

    for (uint64_t id = 1; id <= n; id++) {
        file_add(&file, TG_WATCH_PUT, TG_KIND_TENANT, id, "{\"a\":1}");
    }

    file_add(&file, TG_WATCH_BOOKMARK, 0, 1, "{}");

    for (uint64_t id = 1; id <= n; id += 2) {
        file_add(&file, TG_WATCH_PUT, TG_KIND_TENANT, id, "{\"b\":22}");
    }

    for (uint64_t id = 1; id <= n; id += 4) {
        file_add(&file, TG_WATCH_DELETE, TG_KIND_TENANT, id, "{}");
    }

    file_add(&file, TG_WATCH_BOOKMARK, 0, 2, "{}");

    scan = tg_snapshot_scan_create();
    assert_int_equal(scan_file(scan, file.text.data, file.text.len),
                     TG_SCAN_OK);
    tg_snapshot_scan_result(scan, &result);
    assert_int_equal(result.objects, n * 3 / 4);
    assert_int_equal(result.bytes, n / 2 * 7 + n / 4 * 8);

    for (uint64_t id = 0; id <= n + 1; id++) {
        const tg_snapshot_entry_t  *entry;

        entry = tg_snapshot_scan_find(scan, TG_KIND_TENANT, id);
        assert_true((entry != NULL) == (id >= 1 && id <= n && id % 4 != 1));
        assert_true(entry == NULL || entry->id == id);
        assert_null(tg_snapshot_scan_find(scan, TG_KIND_ISSUER, id));
    }

    tg_snapshot_scan_destroy(scan);
    file_end(&file);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_append),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_lines_moved),
        cmocka_unit_test(test_headers),
        cmocka_unit_test(test_records),
        cmocka_unit_test(test_quota_records),
        cmocka_unit_test(test_revision_goes_back),
        cmocka_unit_test(test_many),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
