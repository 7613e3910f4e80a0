/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * A file of chained records (lib/tg_snapshot.h), written and read without
 * holding the event loop up: records gather in memory until they are flushed,
 * a file is read in slices.
 */

#ifndef NGX_HTTP_TENANT_FILE_H
#define NGX_HTTP_TENANT_FILE_H

#include <ngx_config.h>
#include <ngx_core.h>

#include "../lib/tg_snapshot.h"


typedef struct {
    ngx_fd_t     fd;            /* NGX_INVALID_FILE: none */
    ngx_str_t    name;          /* NUL-terminated: where it is now */
    ngx_log_t   *log;

    uint64_t     size;          /* on disk; what is beyond is not ours */
    uint64_t     base;          /* size of the part that was written at once */
    uint64_t     revision;      /* of the last BOOKMARK on disk */
    uint8_t      digest[TG_SNAPSHOT_DIGEST];    /* of what is on disk */

    tg_chain_t   chain;         /* of what is on disk and in out */
    uint64_t     added;         /* revision of the last BOOKMARK added */
    tg_text_t    out;           /* records to be flushed */
} ngx_http_tenant_file_t;


/* Prepares a file object; NGX_ERROR: OpenSSL failed. */
ngx_int_t ngx_http_tenant_file_init(ngx_http_tenant_file_t *file,
    ngx_log_t *log);

/* Creates name anew, with a header. */
ngx_int_t ngx_http_tenant_file_create(ngx_http_tenant_file_t *file,
    const ngx_str_t *name, const char *registry, const char *gateway);

/* Opens name to go on after size bytes, which have this digest and revision;
 * cuts off what is beyond them. */
ngx_int_t ngx_http_tenant_file_append(ngx_http_tenant_file_t *file,
    const ngx_str_t *name, uint64_t size, uint64_t revision,
    const uint8_t *digest);

/* How a file was when somebody ended writing it. */
typedef struct {
    uint64_t     inode;         /* 0: nothing is known */
    uint64_t     size;
    uint64_t     base;
    uint64_t     revision;
    uint8_t      digest[TG_SNAPSHOT_DIGEST];
} ngx_http_tenant_file_mark_t;

void ngx_http_tenant_file_mark(const ngx_http_tenant_file_t *file,
    ngx_http_tenant_file_mark_t *mark);

/* Opens name to go on where mark says, without reading it.  NGX_DECLINED: it is
 * another file by now, or shorter. */
ngx_int_t ngx_http_tenant_file_resume(ngx_http_tenant_file_t *file,
    const ngx_str_t *name, const ngx_http_tenant_file_mark_t *mark);

/* Takes over what from has open, with all its state. */
void ngx_http_tenant_file_move(ngx_http_tenant_file_t *to,
    ngx_http_tenant_file_t *from);

void ngx_http_tenant_file_close(ngx_http_tenant_file_t *file);

/* Adds a record to what will be flushed. */
ngx_int_t ngx_http_tenant_file_add(ngx_http_tenant_file_t *file,
    const tg_record_t *record);

/* Adds a BOOKMARK. */
ngx_int_t ngx_http_tenant_file_bookmark(ngx_http_tenant_file_t *file,
    uint64_t revision);

/* Writes what was added.  NGX_ERROR: nothing of it is in the file, all of it is
 * still in memory. */
ngx_int_t ngx_http_tenant_file_flush(ngx_http_tenant_file_t *file);

/* Forgets what was added and not flushed. */
void ngx_http_tenant_file_rewind(ngx_http_tenant_file_t *file);

/* Makes the file durable, and then known by name. */
ngx_int_t ngx_http_tenant_file_publish(ngx_http_tenant_file_t *file,
    const ngx_str_t *name);


/* Holds name.lock, by a descriptor to be closed.  NGX_INVALID_FILE: another
 * process holds it (NGX_EAGAIN), or it cannot be opened. */
ngx_fd_t ngx_http_tenant_file_lock(const ngx_str_t *name);


/* --- reading --- */

typedef struct {
    ngx_fd_t     fd;
    uint64_t     offset;
    uint64_t     end;           /* bytes to read; UINT64_MAX: all there are */
    tg_lines_t   lines;
    const char  *pos;           /* in buffer */
    const char  *last;
    ngx_uint_t   eof;
    char         buffer[262144];
} ngx_http_tenant_reader_t;


/* NULL: the file cannot be opened, errno says why. */
ngx_http_tenant_reader_t *ngx_http_tenant_reader_open(const ngx_str_t *name,
    uint64_t offset, uint64_t end, ngx_log_t *log);

void ngx_http_tenant_reader_close(ngx_http_tenant_reader_t *reader);

/* The next whole line.  NGX_DONE: no more of them; NGX_ERROR: errno is set, or
 * 0: a line is too long. */
ngx_int_t ngx_http_tenant_reader_line(ngx_http_tenant_reader_t *reader,
    const char **line, size_t *len);


#endif /* NGX_HTTP_TENANT_FILE_H */
