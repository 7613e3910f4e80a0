/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The backend of the bench as a program of its own:
 *
 *     backend PORT
 */

#define _GNU_SOURCE

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "backend.h"


int
main(int argc, char **argv)
{
    static backend_t  backend;

    signal(SIGPIPE, SIG_IGN);

    if (argc != 2 || backend_start(&backend, (unsigned) atoi(argv[1])) != 0) {
        fprintf(stderr, "usage: backend PORT (a free one)\n");
        return 1;
    }

    for ( ;; ) {
        backend_poll(&backend, -1);
    }
}
