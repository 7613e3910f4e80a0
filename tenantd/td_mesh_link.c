/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The programs' links.  They are pinned beside the maps and outlive the agent.  An
 * upgrade gives each of them its new program at once, also when that has maps of
 * another layout; those of the old layout go last.
 */

#include "td_mesh_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "tg_mesh.skel.h"


/* Whether the link that is pinned there is of this cgroup. */
static int
link_of_cgroup(int link, uint64_t cgroup)
{
    uint32_t              length;
    struct bpf_link_info  info;

    memset(&info, 0, sizeof(info));
    length = sizeof(info);

    return bpf_obj_get_info_by_fd(link, &info, &length) == 0
           && info.type == BPF_LINK_TYPE_CGROUP && info.cgroup.cgroup_id == cgroup;
}


/* A new link takes the place of what is pinned there.  (A bpf file system takes no
 * name with a dot.) */
static int
create_link(const struct bpf_program *program, int cgroup_fd, const char *path)
{
    int   link, err;
    char  beside[400];

    link = bpf_link_create(bpf_program__fd(program), cgroup_fd,
                           bpf_program__expected_attach_type(program), NULL);
    if (link < 0) {
        return link;
    }

    snprintf(beside, sizeof(beside), "%s-new", path);
    unlink(beside);

    err = bpf_obj_pin(link, beside);
    if (err == 0 && rename(beside, path) != 0) {
        err = -errno;
        unlink(beside);
    }

    close(link);

    return err;
}


static int
attach_program(td_mesh_t *mesh, const struct bpf_program *program, int cgroup_fd,
    uint64_t cgroup)
{
    int   link, err;
    char  path[360];

    snprintf(path, sizeof(path), "%s/links/%s", mesh->pins, bpf_program__name(program));

    link = bpf_obj_get(path);
    if (link >= 0 && link_of_cgroup(link, cgroup)) {
        err = bpf_link_update(link, bpf_program__fd(program), NULL);
        close(link);
        return err;
    }

    err = create_link(program, cgroup_fd, path);

    if (link >= 0) {
        if (err == 0) {
            (void) bpf_link_detach(link);
        }

        close(link);
    }

    return err;
}


/* At once: what only loses its pin goes some time later. */
static void
detach_link(const char *path)
{
    int  link;

    link = bpf_obj_get(path);

    if (link >= 0) {
        (void) bpf_link_detach(link);
        close(link);
    }
}


/* Removes the pins in a folder, and it; before each is removed it is given to end,
 * unless that is NULL. */
static void
remove_folder(const char *folder, void (*end)(const char *path))
{
    DIR            *dir;
    char            path[960];
    struct dirent  *entry;

    dir = opendir(folder);
    if (dir == NULL) {
        return;
    }

    while ((entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] != '.') {
            snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);

            if (end != NULL) {
                end(path);
            }

            unlink(path);
        }
    }

    closedir(dir);
    rmdir(folder);
}


/* Of layouts that no link uses any more; with all, of ours too. */
static void
remove_maps(td_mesh_t *mesh, int all)
{
    DIR            *dir;
    char            path[640], ours[32];
    struct dirent  *entry;

    dir = opendir(mesh->pins);
    if (dir == NULL) {
        return;
    }

    snprintf(ours, sizeof(ours), "maps-%d", TG_LAYOUT);

    while ((entry = readdir(dir)) != NULL) {
        if (strncmp(entry->d_name, "maps-", 5) == 0
            && (all || strcmp(entry->d_name, ours) != 0))
        {
            snprintf(path, sizeof(path), "%s/%s", mesh->pins, entry->d_name);
            remove_folder(path, NULL);
        }
    }

    closedir(dir);
}


/*
 * What translates back and counts comes before what translates, so that with the
 * first attach no connection is half known.
 */
int
td_mesh_attach(td_mesh_t *mesh, const char *cgroup)
{
    int         err, fd;
    size_t      i;
    char        path[320];
    uint32_t    level;
    uint64_t    id;

    struct bpf_program  *order[] = {
        mesh->skeleton->progs.tg_post_bind4, mesh->skeleton->progs.tg_post_bind6,
        mesh->skeleton->progs.tg_sock_release, mesh->skeleton->progs.tg_sockops,
        mesh->skeleton->progs.tg_recvmsg4, mesh->skeleton->progs.tg_recvmsg6,
        mesh->skeleton->progs.tg_getpeername4, mesh->skeleton->progs.tg_getpeername6,
        mesh->skeleton->progs.tg_connect4, mesh->skeleton->progs.tg_connect6,
        mesh->skeleton->progs.tg_sendmsg4, mesh->skeleton->progs.tg_sendmsg6,
        mesh->skeleton->progs.tg_egress, mesh->skeleton->progs.tg_ingress,
    };

    if (mesh->settings->epoch == 0) {
        return td_mesh_fail(mesh, -EAGAIN, "attach comes after the first commit");
    }

    err = td_mesh_cgroup(cgroup, &id, &level);
    if (err != 0) {
        return td_mesh_fail(mesh, err, cgroup);
    }

    snprintf(path, sizeof(path), "%s/links", mesh->pins);
    if (mkdir(path, 0700) != 0 && errno != EEXIST) {
        return td_mesh_fail(mesh, -errno, path);
    }

    fd = open(cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return td_mesh_fail(mesh, -errno, cgroup);
    }

    for (i = 0; i < sizeof(order) / sizeof(order[0]) && err == 0; i++) {
        err = attach_program(mesh, order[i], fd, id);
        if (err != 0) {
            td_mesh_fail(mesh, err, bpf_program__name(order[i]));
        }
    }

    close(fd);

    if (err == 0) {
        remove_maps(mesh, 0);
    }

    return err;
}


int
td_mesh_detach(td_mesh_t *mesh)
{
    char  path[320];

    snprintf(path, sizeof(path), "%s/links", mesh->pins);
    remove_folder(path, detach_link);
    remove_maps(mesh, 1);
    rmdir(mesh->pins);
    td_mesh_close(mesh);

    return 0;
}
