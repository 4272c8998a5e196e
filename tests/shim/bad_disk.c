/* A disk that fails: interposed before libc by LD_PRELOAD. While the file named by BAD_DISK_FLAG exists, what it says
 * happens to files below BAD_DISK_DIR:
 *   write-eio, write-enospc   write fails
 *   short                     a part is written, then the disk is full
 *   torn                      the same, and the file cannot be made shorter
 *   sync-eio                  fsync fails
 *   dir-sync-eio              fsync of a directory fails
 *   next-dir-sync-eio         the first fsync of a directory succeeds, the others fail
 *   sync-slow                 fsync takes three seconds, and a write waits for its end
 *   fork-eagain               fork fails; this concerns no file
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static int mode(int fd, char *out, size_t size) {
    const char *flag = getenv("BAD_DISK_FLAG"), *dir = getenv("BAD_DISK_DIR");
    char link[64], path[PATH_MAX];
    int saved = errno, file;
    ssize_t n;
    if (!flag || !dir) return 0;
    if ((file = open(flag, O_RDONLY | O_CLOEXEC)) < 0) { errno = saved; return 0; }
    n = read(file, out, size - 1);
    close(file);
    out[n > 0 ? n : 0] = 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    n = readlink(link, path, sizeof path - 1);
    errno = saved;
    if (n <= 0) return 0;
    path[n] = 0;
    return strncmp(path, dir, strlen(dir)) == 0;
}

static ssize_t real_write(int fd, const void *buf, size_t n) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) real = dlsym(RTLD_NEXT, "write");
    return real(fd, buf, n);
}

static volatile int syncing;

ssize_t write(int fd, const void *buf, size_t n) {
    static __thread int part;
    char m[32];
    if (!mode(fd, m, sizeof m)) return real_write(fd, buf, n);
    if (!strcmp(m, "sync-slow")) while (syncing) usleep(1000);
    if (!strcmp(m, "write-eio")) { errno = EIO; return -1; }
    if (!strcmp(m, "write-enospc")) { errno = ENOSPC; return -1; }
    if (!strcmp(m, "short") || !strcmp(m, "torn")) {
        part = !part;
        if (part && n > 1) return real_write(fd, buf, n / 2);
        errno = ENOSPC;
        return -1;
    }
    return real_write(fd, buf, n);
}

static int dir_sync_fails(int fd, const char *m) {
    static int synced;
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISDIR(st.st_mode)) return 0;
    return !strcmp(m, "dir-sync-eio") || (!strcmp(m, "next-dir-sync-eio") && synced++ > 0);
}

#define SYNC(name) \
    int name(int fd) { \
        static int (*real)(int); \
        char m[32]; \
        if (!real) real = dlsym(RTLD_NEXT, #name); \
        if (mode(fd, m, sizeof m) && !strcmp(m, "sync-eio")) { errno = EIO; return -1; } \
        if (mode(fd, m, sizeof m) && dir_sync_fails(fd, m)) { errno = EIO; return -1; } \
        if (mode(fd, m, sizeof m) && !strcmp(m, "sync-slow")) { syncing = 1; sleep(3); syncing = 0; } \
        return real(fd); \
    }
SYNC(fsync)
SYNC(fdatasync)

#define TRUNCATE(name, type) \
    int name(int fd, type length) { \
        static int (*real)(int, type); \
        char m[32]; \
        if (!real) real = dlsym(RTLD_NEXT, #name); \
        if (mode(fd, m, sizeof m) && !strcmp(m, "torn")) { errno = EIO; return -1; } \
        return real(fd, length); \
    }
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)

pid_t fork(void) {
    static pid_t (*real)(void);
    const char *flag = getenv("BAD_DISK_FLAG");
    char m[32] = "";
    int file;
    if (!real) real = dlsym(RTLD_NEXT, "fork");
    if (flag && (file = open(flag, O_RDONLY | O_CLOEXEC)) >= 0) {
        ssize_t n = read(file, m, sizeof m - 1);
        close(file);
        m[n > 0 ? n : 0] = 0;
        if (!strcmp(m, "fork-eagain")) { errno = EAGAIN; return -1; }
    }
    return real();
}
