/* SPDX-License-Identifier: BSD-2-Clause */

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "td_config.h"
#include "td_log.h"


static char  path[64];


static void
write_file(const char *text)
{
    int  fd;

    strcpy(path, "/tmp/test_td_config.XXXXXX");
    fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}


static td_config_t *
load(const char *text, tg_error_t *err)
{
    td_config_t  *config;

    write_file(text);
    config = td_config_load(path, NULL, 0, err);
    unlink(path);

    return config;
}


static void
test_defaults(void **state)
{
    tg_error_t    err;
    td_config_t  *config;

    (void) state;

    config = td_config_load(NULL, NULL, 0, &err);
    assert_non_null(config);
    assert_string_equal(config->listen.socket, "/run/tiergate/tenantd.sock");
    assert_int_equal(config->listen.socket_mode, 0660);
    assert_true(td_list_has(&config->listen.socket_admin_users, "root"));
    assert_int_equal(config->listen.addresses.n, 0);
    assert_int_equal(config->http.max_body, 4 * 1024 * 1024);
    assert_int_equal(config->http.request_timeout, 30000);
    assert_int_equal(config->http.import_timeout, 600000);
    assert_int_equal(config->log.level, TD_LOG_NOTICE);
    assert_int_equal(config->log.access, 1);
    td_config_destroy(config);
}


static void
test_file(void **state)
{
    tg_error_t    err;
    td_config_t  *config;

    (void) state;

    config = load("; comment\n"
                  "[listen]\n"
                  "socket =\n"
                  "addresses = 127.0.0.1:1, [::1]:2\n"
                  "   127.0.0.1:3\n"
                  "   127.0.0.1:4\n"
                  "socket_mode = 0600\n"
                  "insecure_listen = Yes\n"
                  "[http]\n"
                  "max_body = 2k\n"
                  "request_timeout = 1500ms\n"
                  "drain_timeout = 2m\n"
                  "[database]\n"
                  "conninfo = host=/tmp dbname='a b'\n"
                  "[jwks]\n"
                  "allow_cidrs = 10.0.0.0/8 fd00::/8\n"
                  "[log]\n"
                  "level = debug\n", &err);
    assert_non_null(config);
    assert_string_equal(config->listen.socket, "");
    assert_int_equal(config->listen.addresses.n, 4);
    assert_string_equal(config->listen.addresses.item[1], "[::1]:2");
    assert_string_equal(config->listen.addresses.item[3], "127.0.0.1:4");
    assert_int_equal(config->listen.socket_mode, 0600);
    assert_int_equal(config->listen.insecure_listen, 1);
    assert_int_equal(config->http.max_body, 2048);
    assert_int_equal(config->http.request_timeout, 1500);
    assert_int_equal(config->http.drain_timeout, 120000);
    assert_string_equal(config->database.conninfo, "host=/tmp dbname='a b'");
    assert_int_equal(config->jwks.allow_cidrs.n, 2);
    assert_int_equal(config->log.level, TD_LOG_DEBUG);
    td_config_destroy(config);
}


static void
test_precedence(void **state)
{
    char         *overrides[] = { "http.imports=4", "database.role=by=set" };
    tg_error_t    err;
    td_config_t  *config;

    (void) state;

    write_file("[http]\nimports = 2\nmax_header = 8k\nmax_connections = 7\n");
    setenv("TIERGATE_HTTP_IMPORTS", "3", 1);
    setenv("TIERGATE_HTTP_MAX_HEADER", "16k", 1);

    config = td_config_load(path, overrides, 2, &err);
    assert_non_null(config);
    assert_int_equal(config->http.imports, 4);
    assert_int_equal(config->http.max_header, 16384);
    assert_int_equal(config->http.max_connections, 7);
    assert_string_equal(config->database.role, "by=set");
    td_config_destroy(config);

    setenv("TIERGATE_HTTP_MAX_HEADER", "many", 1);
    assert_null(td_config_load(path, NULL, 0, &err));
    assert_non_null(strstr(err.message, "TIERGATE_HTTP_MAX_HEADER"));

    unsetenv("TIERGATE_HTTP_IMPORTS");
    unsetenv("TIERGATE_HTTP_MAX_HEADER");
    unlink(path);
}


static void
test_refusals(void **state)
{
    char          long_line[512];
    size_t        i;
    tg_error_t    err;
    td_config_t  *config;

    static const struct {
        const char  *text;
        const char  *message;   /* a part of it */
    } cases[] = {
        { "[listen]\nsockets = x\n", ":2: \"sockets\" in section [listen] is no option" },
        { "[lissten]\nsocket = x\n", ":2: \"socket\" in section [lissten] is no" },
        { "socket = x\n", ":1: \"socket\" in section [] is no option" },
        { "[listen]\nsocket\n", ":2: this is no" },
        { "[listen\nsocket = x\n", ":1: this is no" },
        { "[listen]\nsocket = a\nsocket = b\n", "is given twice" },
        { "[listen]\nsocket_mode = 0999\n", "octal" },
        { "[listen]\nsocket_mode = 07777\n", "octal" },
        { "[listen]\ninsecure_listen = maybe\n", "yes or no" },
        { "[http]\nimports = 0\n", "too small" },
        { "[provisioner]\nusers = 0-5\n", "must be user numbers" },
        { "[provisioner]\nusers = 9-5\n", "must be user numbers" },
        { "[provisioner]\nusers = 5\n", "must be user numbers" },
        { "[provisioner]\nusers = 1-4294967295\n", "must be user numbers" },
        { "[provisioner]\nusers = 5-9x\n", "must be user numbers" },
        { "[provisioner]\nusers = 1-1000001\n", "at most a million" },
        { "[http]\nimports = -1\n", "must be a number" },
        { "[http]\nimports =\n", "must be a number" },
        { "[http]\nimports = 2x\n", "unknown unit" },
        { "[http]\nimports = 99999999999999999999\n", "too large" },
        { "[http]\nmax_body = 9999999999g\n", "too large" },
        { "[http]\nmax_body = 12\n", "too small" },
        { "[http]\nmax_body = 1t\n", "unknown unit" },
        { "[http]\nrequest_timeout = 5d\n", "unknown unit" },
        { "[http]\nrequest_timeout = 0\n", "too small" },
        { "[jwks]\nallow_cidrs = 10.0.0.1/8\n", "networks" },
        { "[log]\nlevel = loud\n", "must be alert" },
    };

    (void) state;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        config = load(cases[i].text, &err);

        if (config != NULL || strstr(err.message, cases[i].message) == NULL) {
            fail_msg("case %zu: %s", i, config ? "was taken" : err.message);
        }
    }

    memset(long_line, 'x', sizeof(long_line));
    memcpy(long_line, "[listen]\nsocket = ", 18);
    strcpy(long_line + 400, "\n");
    assert_null(load(long_line, &err));
    assert_non_null(strstr(err.message, ":2: the line is longer"));

    assert_null(td_config_load("/nonexistent.ini", NULL, 0, &err));
    assert_non_null(strstr(err.message, "/nonexistent.ini"));
}


static void
test_bad_overrides(void **state)
{
    char        *one;
    size_t       i;
    tg_error_t   err;

    static const char *const  bad[] = {
        "", "http", "http.imports", "imports=3", "http.nothing=3",
        ".imports=3", "http=imports.3", "http.imports=x"
    };

    (void) state;

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        one = (char *) (size_t) bad[i];
        assert_null(td_config_load(NULL, &one, 1, &err));
        assert_non_null(strstr(err.message, "--set"));
    }
}


static int  effective, ineffective;


static void
on_changed(const td_option_t *option, int is_effective)
{
    if (is_effective) {
        effective++;
        assert_string_equal(option->key, "max_body");
    } else {
        ineffective++;
        assert_string_equal(option->key, "conninfo");
    }
}


static void
test_reload(void **state)
{
    tg_error_t    err;
    td_config_t  *config, *fresh;

    (void) state;

    config = load("[http]\nmax_body = 1m\n[database]\nconninfo = a\n", &err);
    fresh = load("[http]\nmax_body = 2m\n[database]\nconninfo = b\n", &err);
    assert_non_null(config);
    assert_non_null(fresh);

    td_config_reload(config, fresh, on_changed);

    assert_int_equal(effective, 1);
    assert_int_equal(ineffective, 1);
    assert_int_equal(config->http.max_body, 2 * 1024 * 1024);
    assert_string_equal(config->database.conninfo, "a");
    td_config_destroy(config);
}


static void
test_table(void **state)
{
    size_t  i, j;

    (void) state;

    for (i = 0; i < td_options_n; i++) {
        assert_true(td_options[i].help[0] != '\0');

        for (j = 0; j < i; j++) {
            assert_false(strcmp(td_options[i].key, td_options[j].key) == 0
                         && strcmp(td_options[i].section,
                                   td_options[j].section) == 0);
            assert_int_not_equal(td_options[i].offset, td_options[j].offset);
        }
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_file),
        cmocka_unit_test(test_precedence),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_bad_overrides),
        cmocka_unit_test(test_reload),
        cmocka_unit_test(test_table),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
