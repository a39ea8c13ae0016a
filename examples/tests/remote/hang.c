/* Loaded before a program: its volumes' disk hangs from when the file that OMA_TEST_HANG names is there. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Comes back unless this is a volume and its disk hangs. Tells that somebody has come. */
static void hang(int fd) {
    const char *file = getenv("OMA_TEST_HANG");
    char link[64], path[PATH_MAX];
    if (!file || access(file, F_OK) != 0)
        return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path);
    if (length < 4 || memcmp(path + length - 4, ".raw", 4) != 0)
        return;
    snprintf(path, sizeof path, "%s.reached", file);
    close(open(path, O_CREAT | O_WRONLY, 0600));
    for (;;)
        pause();
}

int fsync(int fd) {
    hang(fd);
    return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
}

int fdatasync(int fd) {
    hang(fd);
    return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd);
}
