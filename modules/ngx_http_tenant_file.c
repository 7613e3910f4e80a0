/* SPDX-License-Identifier: BSD-2-Clause */

#include "ngx_http_tenant_file.h"

#include <sys/file.h>


ngx_int_t
ngx_http_tenant_file_init(ngx_http_tenant_file_t *file, ngx_log_t *log)
{
    ngx_memzero(file, sizeof(ngx_http_tenant_file_t));

    file->fd = NGX_INVALID_FILE;
    file->log = log;

    return tg_chain_init(&file->chain) == 0 ? NGX_OK : NGX_ERROR;
}


void
ngx_http_tenant_file_close(ngx_http_tenant_file_t *file)
{
    if (file->fd != NGX_INVALID_FILE && ngx_close_file(file->fd) != 0) {
        ngx_log_error(NGX_LOG_ERR, file->log, ngx_errno,
                      "tenant: closing \"%V\" failed", &file->name);
    }

    file->fd = NGX_INVALID_FILE;

    tg_text_free(&file->out);
    tg_chain_free(&file->chain);
}


void
ngx_http_tenant_file_move(ngx_http_tenant_file_t *to,
    ngx_http_tenant_file_t *from)
{
    ngx_http_tenant_file_close(to);

    *to = *from;

    ngx_memzero(&from->chain, sizeof(tg_chain_t));
    tg_text_init(&from->out);
    from->fd = NGX_INVALID_FILE;
}


ngx_int_t
ngx_http_tenant_file_create(ngx_http_tenant_file_t *file,
    const ngx_str_t *name, const char *registry, const char *gateway)
{
    file->name = *name;
    file->fd = open((char *) name->data,
                    O_WRONLY|O_CREAT|O_TRUNC|O_NOFOLLOW|O_CLOEXEC, 0600);

    if (file->fd == NGX_INVALID_FILE) {
        ngx_log_error(NGX_LOG_ERR, file->log, ngx_errno,
                      "tenant: creating \"%V\" failed", name);
        return NGX_ERROR;
    }

    if (tg_snapshot_header(&file->out, &file->chain, registry, gateway) != 0) {
        return NGX_ERROR;
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_tenant_file_append(ngx_http_tenant_file_t *file,
    const ngx_str_t *name, uint64_t size, uint64_t revision,
    const uint8_t *digest)
{
    ngx_file_info_t  fi;

    file->name = *name;
    file->fd = open((char *) name->data, O_WRONLY|O_NOFOLLOW|O_CLOEXEC);

    if (file->fd == NGX_INVALID_FILE) {
        ngx_log_error(NGX_LOG_ERR, file->log, ngx_errno,
                      "tenant: opening \"%V\" failed", name);
        return NGX_ERROR;
    }

    if (ngx_fd_info(file->fd, &fi) == -1 || !S_ISREG(fi.st_mode)
        || (uint64_t) fi.st_size < size
        || ftruncate(file->fd, (off_t) size) == -1)
    {
        ngx_log_error(NGX_LOG_ERR, file->log, ngx_errno,
                      "tenant: \"%V\" cannot be written on", name);
        return NGX_ERROR;
    }

    file->size = size;
    file->base = size;
    file->revision = revision;
    file->added = revision;
    ngx_memcpy(file->digest, digest, TG_SNAPSHOT_DIGEST);
    ngx_memcpy(file->chain.digest, digest, TG_SNAPSHOT_DIGEST);

    return NGX_OK;
}


void
ngx_http_tenant_file_mark(const ngx_http_tenant_file_t *file,
    ngx_http_tenant_file_mark_t *mark)
{
    ngx_file_info_t  fi;

    ngx_memzero(mark, sizeof(ngx_http_tenant_file_mark_t));

    if (file->fd == NGX_INVALID_FILE || ngx_fd_info(file->fd, &fi) == -1) {
        return;
    }

    mark->inode = fi.st_ino;
    mark->size = file->size;
    mark->base = file->base;
    mark->revision = file->revision;
    ngx_memcpy(mark->digest, file->digest, TG_SNAPSHOT_DIGEST);
}


ngx_int_t
ngx_http_tenant_file_resume(ngx_http_tenant_file_t *file,
    const ngx_str_t *name, const ngx_http_tenant_file_mark_t *mark)
{
    ngx_file_info_t  fi;

    if (mark->inode == 0
        || ngx_file_info(name->data, &fi) == NGX_FILE_ERROR
        || (uint64_t) fi.st_ino != mark->inode
        || (uint64_t) fi.st_size < mark->size
        || ngx_http_tenant_file_append(file, name, mark->size, mark->revision,
                                       mark->digest) != NGX_OK)
    {
        return NGX_DECLINED;
    }

    file->base = mark->base;

    return NGX_OK;
}


ngx_int_t
ngx_http_tenant_file_add(ngx_http_tenant_file_t *file,
    const tg_record_t *record)
{
    return tg_snapshot_record(&file->out, &file->chain, record) == 0
           ? NGX_OK : NGX_ERROR;
}


ngx_int_t
ngx_http_tenant_file_bookmark(ngx_http_tenant_file_t *file, uint64_t revision)
{
    int          n;
    char         line[64];
    tg_record_t  record;

    n = snprintf(line, sizeof(line), "{\"type\":\"BOOKMARK\",\"revision\":%llu}",
                 (unsigned long long) revision);

    record.type = TG_WATCH_BOOKMARK;
    record.kind = 0;
    record.number = revision;
    record.line = line;
    record.len = (size_t) n;

    file->added = revision;

    return ngx_http_tenant_file_add(file, &record);
}


ngx_int_t
ngx_http_tenant_file_flush(ngx_http_tenant_file_t *file)
{
    ssize_t  n;
    size_t   done;

    for (done = 0; done < file->out.len; done += n) {
        n = pwrite(file->fd, file->out.data + done, file->out.len - done,
                   (off_t) (file->size + done));

        if (n == -1 && ngx_errno == NGX_EINTR) {
            n = 0;
            continue;
        }

        if (n <= 0) {
            ngx_log_error(NGX_LOG_ERR, file->log, n ? ngx_errno : 0,
                          "tenant: writing \"%V\" failed", &file->name);

            /* what could not be cut off is overwritten, or seen as torn */
            (void) !ftruncate(file->fd, (off_t) file->size);
            return NGX_ERROR;
        }
    }

    /* let the disk begin, so that publishing does not wait for all of it */

    (void) sync_file_range(file->fd, (off64_t) file->size, (off64_t) done,
                           SYNC_FILE_RANGE_WRITE);

    file->size += done;
    file->revision = file->added;
    ngx_memcpy(file->digest, file->chain.digest, TG_SNAPSHOT_DIGEST);
    tg_text_reset(&file->out);

    return NGX_OK;
}


void
ngx_http_tenant_file_rewind(ngx_http_tenant_file_t *file)
{
    tg_text_free(&file->out);
    file->added = file->revision;
    ngx_memcpy(file->chain.digest, file->digest, TG_SNAPSHOT_DIGEST);
}


ngx_int_t
ngx_http_tenant_file_publish(ngx_http_tenant_file_t *file,
    const ngx_str_t *name)
{
    if (fdatasync(file->fd) == -1) {
        ngx_log_error(NGX_LOG_ERR, file->log, ngx_errno,
                      "tenant: fdatasync of \"%V\" failed", &file->name);
        return NGX_ERROR;
    }

    if (ngx_rename_file(file->name.data, name->data) == NGX_FILE_ERROR) {
        ngx_log_error(NGX_LOG_ERR, file->log, ngx_errno,
                      "tenant: renaming \"%V\" to \"%V\" failed", &file->name,
                      name);
        return NGX_ERROR;
    }

    file->name = *name;

    return NGX_OK;
}


ngx_fd_t
ngx_http_tenant_file_lock(const ngx_str_t *name)
{
    char       lock[NGX_MAX_PATH];
    ngx_fd_t   fd;
    ngx_err_t  err;

    (void) snprintf(lock, sizeof(lock), "%s.lock", name->data);

    fd = open(lock, O_RDWR|O_CREAT|O_NOFOLLOW|O_CLOEXEC, 0600);

    if (fd == NGX_INVALID_FILE || flock(fd, LOCK_EX|LOCK_NB) == 0) {
        return fd;
    }

    err = ngx_errno;
    (void) ngx_close_file(fd);
    ngx_set_errno(err);

    return NGX_INVALID_FILE;
}


ngx_http_tenant_reader_t *
ngx_http_tenant_reader_open(const ngx_str_t *name, uint64_t offset,
    uint64_t end, ngx_log_t *log)
{
    ngx_fd_t                   fd;
    ngx_http_tenant_reader_t  *reader;

    /* not a pipe or device: those could be waited for */
    fd = open((char *) name->data, O_RDONLY|O_NOFOLLOW|O_NONBLOCK|O_CLOEXEC);

    if (fd == NGX_INVALID_FILE) {
        return NULL;
    }

    reader = ngx_alloc(sizeof(ngx_http_tenant_reader_t), log);

    if (reader == NULL) {
        (void) ngx_close_file(fd);
        ngx_set_errno(NGX_ENOMEM);
        return NULL;
    }

    reader->fd = fd;
    reader->offset = offset;
    reader->end = end;
    reader->pos = reader->buffer;
    reader->last = reader->buffer;
    reader->eof = 0;
    tg_lines_init(&reader->lines, TG_SNAPSHOT_LINE);

    (void) posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);

    return reader;
}


void
ngx_http_tenant_reader_close(ngx_http_tenant_reader_t *reader)
{
    if (reader == NULL) {
        return;
    }

    tg_lines_free(&reader->lines);
    (void) ngx_close_file(reader->fd);
    ngx_free(reader);
}


static ngx_int_t
ngx_http_tenant_reader_fill(ngx_http_tenant_reader_t *reader)
{
    size_t   size;
    ssize_t  n;

    size = sizeof(reader->buffer);

    if (reader->end - reader->offset < size) {
        size = reader->end - reader->offset;
    }

    do {
        n = pread(reader->fd, reader->buffer, size, (off_t) reader->offset);
    } while (n == -1 && ngx_errno == NGX_EINTR);

    if (n == -1) {
        return NGX_ERROR;
    }

    reader->offset += n;
    reader->pos = reader->buffer;
    reader->last = reader->buffer + n;
    reader->eof = (n == 0);

    return NGX_OK;
}


ngx_int_t
ngx_http_tenant_reader_line(ngx_http_tenant_reader_t *reader,
    const char **line, size_t *len)
{
    for ( ;; ) {
        switch (tg_lines_next(&reader->lines, &reader->pos, reader->last, line,
                              len))
        {
        case TG_LINES_LINE:
            return NGX_OK;

        case TG_LINES_MORE:
            break;

        default:
            ngx_set_errno(0);
            return NGX_ERROR;
        }

        if (reader->eof) {
            return NGX_DONE;
        }

        if (ngx_http_tenant_reader_fill(reader) != NGX_OK) {
            return NGX_ERROR;
        }
    }
}
