/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Stands in for libFuzzer's main: feeds the target every file of the folders
 * given, and the empty input, once each.  An input is copied to a block of
 * exactly its size, so that a sanitizer sees the first byte read past its end.
 */

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static size_t  replayed;


static int
replay_file(const char *path, size_t size)
{
    int       rc;
    FILE     *f;
    uint8_t  *data;

    rc = -1;
    f = fopen(path, "rb");
    data = malloc(size);

    if (f != NULL && (data != NULL || size == 0)
        && fread(data, 1, size, f) == size)
    {
        (void) LLVMFuzzerTestOneInput(data, size);
        replayed++;
        rc = 0;

    } else {
        fprintf(stderr, "replay: cannot read %s: %s\n", path, strerror(errno));
    }

    free(data);

    if (f != NULL) {
        (void) fclose(f);
    }

    return rc;
}


static int
replay_folder(const char *folder)
{
    int             rc;
    DIR            *dir;
    char            path[PATH_MAX];
    struct stat     st;
    struct dirent  *entry;

    dir = opendir(folder);

    if (dir == NULL) {
        fprintf(stderr, "replay: cannot open %s: %s\n", folder, strerror(errno));
        return -1;
    }

    rc = 0;

    while (rc == 0 && (entry = readdir(dir)) != NULL) {
        (void) snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);

        if (stat(path, &st) == 0 && S_ISREG(st.st_mode)) {
            rc = replay_file(path, (size_t) st.st_size);
        }
    }

    (void) closedir(dir);
    return rc;
}


int
main(int argc, char *argv[])
{
    static const uint8_t  nothing[1];

    (void) LLVMFuzzerTestOneInput(nothing, 0);

    for (int i = 1; i < argc; i++) {
        if (replay_folder(argv[i]) != 0) {
            return EXIT_FAILURE;
        }
    }

    if (replayed == 0) {
        fprintf(stderr, "replay: no input found\n");
        return EXIT_FAILURE;
    }

    printf("replayed %zu inputs of %s\n", replayed, argv[argc - 1]);
    return EXIT_SUCCESS;
}
