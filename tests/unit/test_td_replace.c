/* SPDX-License-Identifier: BSD-2-Clause */

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "td_replace.h"


static void
put(const char *path, const char *text)
{
    FILE  *file;

    file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}


static void
assert_holds(const char *path, const char *text)
{
    int      fd;
    char     found[64];
    ssize_t  n;

    fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    n = read(fd, found, sizeof(found) - 1);
    assert_true(n >= 0);
    found[n] = '\0';
    close(fd);
    assert_string_equal(found, text);
}


static int
enter(void **state)
{
    static char  directory[64];

    strcpy(directory, "/tmp/tiergate-replace-XXXXXX");
    *state = mkdtemp(directory);

    return *state != NULL ? chdir(directory) : -1;
}


static int
leave(void **state)
{
    unlink("old");
    unlink("new");

    return chdir("/") == 0 ? rmdir(*state) : -1;
}


static void
test_replaced(void **state)
{
    int   fd;
    char  from[128], to[128];

    put("old", "before");
    put("new", "after");
    fd = open("new", O_WRONLY);
    assert_int_equal(td_replace(fd, "new", "old"), 0);
    assert_holds("old", "after");
    assert_int_equal(access("new", F_OK), -1);

    /* by whole paths, and where there was nothing */
    snprintf(from, sizeof(from), "%s/old", (char *) *state);
    snprintf(to, sizeof(to), "%s/new", (char *) *state);
    assert_int_equal(td_replace(fd, from, to), 0);
    assert_holds("new", "after");
    close(fd);
}


/* What cannot be brought to the disk does not take the old one's place. */
static void
test_content_first(void **state)
{
    int  ends[2];

    (void) state;

    put("old", "before");
    put("new", "after");
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(td_replace(ends[1], "new", "old"), -1);
    assert_int_equal(errno, EINVAL);
    assert_holds("old", "before");
    assert_holds("new", "after");
    assert_int_equal(td_replace(-1, "new", "old"), -1);
    assert_holds("old", "before");
    close(ends[0]);
    close(ends[1]);
}


static void
test_refused(void **state)
{
    int  fd;

    (void) state;

    put("new", "after");
    fd = open("new", O_WRONLY);
    assert_int_equal(td_replace(fd, "none", "old"), -1);
    assert_int_equal(errno, ENOENT);
    assert_int_equal(td_replace(fd, "new", "none/old"), -1);
    assert_int_equal(errno, ENOENT);
    assert_holds("new", "after");
    close(fd);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test_setup_teardown(test_replaced, enter, leave),
        cmocka_unit_test_setup_teardown(test_content_first, enter, leave),
        cmocka_unit_test_setup_teardown(test_refused, enter, leave),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
