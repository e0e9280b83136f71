/* Preloaded into a process: the FAULT_AT-th write, fsync or rename below FAULT_FOLDER fails with FAULT_ERRNO; with ENOSPC all that follow
   fail too, as on a full disk. At the end the number of such calls is written to FAULT_COUNT. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static int calls;

static int below(const char *path) {
  const char *folder = getenv("FAULT_FOLDER");
  return folder && strncmp(path, folder, strlen(folder)) == 0;
}

static int fails(void) {
  int call = __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST), at = atoi(getenv("FAULT_AT")), code = atoi(getenv("FAULT_ERRNO"));
  if (at == 0 || !(call == at || (code == ENOSPC && call > at))) return 0;
  errno = code;
  return 1;
}

static int fd_fails(int fd) {
  char link[64], path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t size = readlink(link, path, sizeof path - 1);
  if (size < 0) return 0;
  path[size] = 0;
  return below(path) && fails();
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define ON_FD(type, name, arguments, ...) type name arguments { return fd_fails(fd) ? -1 : REAL(name)(__VA_ARGS__); }

ON_FD(ssize_t, write, (int fd, const void *data, size_t size), fd, data, size)
ON_FD(ssize_t, pwrite, (int fd, const void *data, size_t size, off_t at), fd, data, size, at)
ON_FD(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), fd, data, size, at)
ON_FD(ssize_t, writev, (int fd, const struct iovec *parts, int count), fd, parts, count)
ON_FD(int, fsync, (int fd), fd)
ON_FD(int, fdatasync, (int fd), fd)

int rename(const char *from, const char *to) { return below(to) && fails() ? -1 : REAL(rename)(from, to); }
int renameat(int a, const char *from, int b, const char *to) { return below(to) && fails() ? -1 : REAL(renameat)(a, from, b, to); }

__attribute__((destructor)) static void report(void) {
  const char *path = getenv("FAULT_COUNT");
  FILE *file = path ? fopen(path, "w") : NULL;
  if (file) fprintf(file, "%d", calls), fclose(file);
}
