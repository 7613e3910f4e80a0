/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Configuration files: any text is either loaded or refused with a reason.
 */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "td_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int           fd;
    char          path[] = "/tmp/fuzz_td_config.XXXXXX";
    ssize_t       written;
    tg_error_t    err;
    td_config_t  *config;

    fd = mkstemp(path);
    if (fd < 0) {
        return 0;
    }

    written = write(fd, data, size);
    close(fd);

    config = written == (ssize_t) size
             ? td_config_load(path, NULL, 0, &err) : NULL;

    if (config == NULL && err.message[0] == '\0') {
        abort();
    }

    td_config_destroy(config);
    unlink(path);

    return 0;
}
