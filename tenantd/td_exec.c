/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * tenantd exec: asks this machine's agent to make a workload of this process, and
 * becomes the command.  Standard streams, environment, working directory, exit
 * status and signals are the command's own.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <net/if.h>
#include <pwd.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <jansson.h>

#include "td_cidr.h"
#include "td_cli.h"
#include "td_exec_net.h"


#define TD_EXEC_ANSWER   4096
#define TD_EXEC_WAIT     10             /* s for the agent */
#define TD_EXEC_LINK     "eth0"

/* As env(1) and others have it. */
#define TD_EXEC_FAILED   125
#define TD_EXEC_NOT_RUN  126
#define TD_EXEC_ABSENT   127


static int
td_exec_fail(const char *fmt, const char *what)
{
    fprintf(stderr, "tenantd exec: ");
    fprintf(stderr, fmt[0] ? "%s: %s\n" : "%s%s\n", fmt, what);

    return TD_EXEC_FAILED;
}


static int
td_exec_connect(const char *path)
{
    int                  fd;
    struct timeval       wait = { TD_EXEC_WAIT, 0 };
    struct sockaddr_un   address;

    memset(&address, 0, sizeof(address));
    address.sun_family = AF_UNIX;

    if (strlen(path) >= sizeof(address.sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }

    strcpy(address.sun_path, path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || connect(fd, (struct sockaddr *) &address, sizeof(address)) != 0) {
        return -1;
    }

    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait));

    return fd;
}


/* The request, and with it our network namespace. */
static int
td_exec_send(int fd, const char *text, int netns)
{
    char             control[CMSG_SPACE(sizeof(int))];
    struct iovec     iov;
    struct msghdr    message;
    struct cmsghdr  *head;

    memset(&message, 0, sizeof(message));
    memset(control, 0, sizeof(control));
    iov.iov_base = (char *) text;
    iov.iov_len = strlen(text);
    message.msg_iov = &iov;
    message.msg_iovlen = 1;

    if (netns >= 0) {
        message.msg_control = control;
        message.msg_controllen = sizeof(control);
        head = CMSG_FIRSTHDR(&message);
        head->cmsg_level = SOL_SOCKET;
        head->cmsg_type = SCM_RIGHTS;
        head->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(head), &netns, sizeof(int));
    }

    return sendmsg(fd, &message, MSG_NOSIGNAL) == (ssize_t) iov.iov_len ? 0 : -1;
}


/* NULL with errno: no answer. */
static json_t *
td_exec_read(int fd)
{
    char     text[TD_EXEC_ANSWER];
    size_t   len;
    json_t  *answer;
    ssize_t  n;

    for (len = 0; len < sizeof(text); len += (size_t) n) {
        n = recv(fd, text + len, sizeof(text) - len, 0);

        if (n <= 0) {
            errno = n == 0 ? ECONNRESET : errno;
            return NULL;
        }

        if (memchr(text + len, '\n', (size_t) n) != NULL) {
            len += (size_t) n;
            break;
        }
    }

    answer = json_loadb(text, len, JSON_DISABLE_EOF_CHECK, NULL);
    errno = EPROTO;

    return answer;
}


static int
td_exec_wire_all(json_t *answer)
{
    int              rc;
    size_t           i;
    td_cidr_t        cidr;
    const char      *text;
    struct tg_addr   addr;

    for (i = 0; i < json_array_size(json_object_get(answer, "addresses")); i++) {
        text = json_string_value(json_array_get(json_object_get(answer, "addresses"),
                                                i));

        if (text == NULL || td_cidr_parse(text, &cidr) != 0) {
            return td_exec_fail("the agent's answer cannot be understood", "address");
        }

        memcpy(&addr, cidr.address, sizeof(addr));
        rc = td_exec_wire(TD_EXEC_LINK, &addr);

        if (rc != 0) {
            return td_exec_fail("cannot bring " TD_EXEC_LINK " up", strerror(-rc));
        }
    }

    return 0;
}


/* Asks, and is in the cgroup afterwards. */
static int
td_exec_enter(const td_cli_t *cli, const char *path)
{
    int          fd, netns, rc, unsent;
    char        *text, line[TD_EXEC_ANSWER];
    json_t      *answer, *request;
    const char  *error;

    fd = td_exec_connect(path);
    if (fd < 0) {
        return td_exec_fail("cannot reach the agent", strerror(errno));
    }

    netns = -1;

    if (cli->netns) {
        if (unshare(CLONE_NEWNET) != 0
            || (netns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC)) < 0)
        {
            return td_exec_fail("no network namespace can be made", strerror(errno));
        }
    }

    request = json_pack("{s:s, s:s, s:s*, s:b}", "tenant", cli->tenant, "service",
                        cli->service, "name", cli->name, "netns", cli->netns);
    text = json_dumps(request, JSON_COMPACT);
    json_decref(request);

    if (text == NULL || strlen(text) + 2 > sizeof(line)) {
        free(text);
        return td_exec_fail("", "tenant, service or name cannot be sent");
    }

    snprintf(line, sizeof(line), "%s\n", text);
    free(text);

    /* an agent that has many to refuse answers and closes before it is asked */
    unsent = td_exec_send(fd, line, netns) == 0 ? 0 : errno;
    answer = td_exec_read(fd);

    if (answer == NULL) {
        return td_exec_fail("the agent does not answer",
                            strerror(unsent != 0 ? unsent : errno));
    }

    error = json_string_value(json_object_get(answer, "error"));
    rc = error != NULL ? td_exec_fail("", error)
         : cli->netns ? td_exec_wire_all(answer) : 0;
    json_decref(answer);

    return rc;
}


static int
td_exec_become(const char *user)
{
    struct passwd  *pw;

    errno = 0;
    pw = getpwnam(user);

    if (pw == NULL) {
        return td_exec_fail(user, errno ? strerror(errno) : "there is no such user");
    }

    if (pw->pw_uid == geteuid() && pw->pw_uid != 0) {
        return 0;
    }

    return initgroups(user, pw->pw_gid) != 0 || setgid(pw->pw_gid) != 0
           || setuid(pw->pw_uid) != 0 ? td_exec_fail(user, strerror(errno)) : 0;
}


int
td_exec(td_cli_t *cli)
{
    int           rc;
    char         *path;
    tg_error_t    err;
    td_config_t  *config;

    if (cli->tenant == NULL || cli->service == NULL || cli->words == 0) {
        fprintf(stderr, "tenantd exec: --tenant T --service S -- COMMAND is needed\n");
        return TD_EXEC_FAILED;
    }

    config = td_cli_load(cli, &err);
    if (config == NULL) {
        return TD_EXEC_FAILED;
    }

    path = strdup(config->agent.socket);
    td_config_destroy(config);

    rc = path == NULL || path[0] == '\0'
         ? td_exec_fail("", "[agent] socket is empty") : td_exec_enter(cli, path);
    free(path);

    if (rc == 0 && cli->user != NULL) {
        rc = td_exec_become(cli->user);
    }

    if (rc != 0) {
        return rc;
    }

    execvp(cli->word[0], cli->word);
    rc = errno == ENOENT ? TD_EXEC_ABSENT : TD_EXEC_NOT_RUN;
    td_exec_fail(cli->word[0], strerror(errno));

    return rc;
}
