/* Remembers what a power cut would take: preloaded into a process, it keeps, for every file whose
 * path ends in .db or .db-wal, a journal of the writes since that file's last fsync.
 *
 * One record per write, appended to FILE.unsynced before the write itself:
 *     int64 offset, int64 length, int64 size of the file before, then the old bytes of the range
 *     (zeros beyond the old end), then the new bytes.
 * A truncation is a record whose length is -1, offset the new size, and no bytes; the database is
 * never truncated below what it synced before (SQLite truncates its WAL only when it deletes it).
 * An fsync that returned empties the journal. So after SIGKILL (which loses nothing by itself: the
 * page cache lives on) a test can undo the journal and has the file as after a power cut.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* The journal's path for a watched descriptor, or 0. */
static int journal_of(int fd, char *path) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, PATH_MAX - 16);
  if (length <= 0) return 0;
  path[length] = 0;
  if ((length < 3 || strcmp(path + length - 3, ".db")) &&
      (length < 7 || strcmp(path + length - 7, ".db-wal")))
    return 0;
  strcpy(path + length, ".unsynced");
  return 1;
}

static void must(int ok, const char *what) {
  if (!ok) {
    perror(what);
    abort();
  }
}

static void record(int fd, const char *path, const void *bytes, int64_t length, int64_t offset) {
  struct stat status;
  must(fstat(fd, &status) == 0, "fstat");
  int64_t body = length > 0 ? length : 0;
  int64_t head[3] = {offset, length, status.st_size};
  size_t size = sizeof head + 2 * (size_t)body;
  char *entry = calloc(1, size);
  must(entry != NULL, "calloc");
  memcpy(entry, head, sizeof head);
  if (body) {
    must(pread(fd, entry + sizeof head, (size_t)body, offset) >= 0, "pread");
    memcpy(entry + sizeof head + body, bytes, (size_t)body);
  }
  int journal = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  must(journal >= 0, "open journal");
  must(REAL(write)(journal, entry, size) == (ssize_t)size, "write journal");
  close(journal);
  free(entry);
}

static ssize_t watched_pwrite(int fd, const void *bytes, size_t length, off64_t offset) {
  char path[PATH_MAX];
  ssize_t (*real)(int, const void *, size_t, off64_t) = REAL(pwrite64);
  if (!journal_of(fd, path)) return real(fd, bytes, length, offset);
  pthread_mutex_lock(&lock);
  record(fd, path, bytes, (int64_t)length, offset);
  ssize_t written = real(fd, bytes, length, offset);
  pthread_mutex_unlock(&lock);
  return written;
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) {
  return watched_pwrite(fd, bytes, length, offset);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) {
  return watched_pwrite(fd, bytes, length, offset);
}

static int watched_truncate(int fd, off64_t size) {
  char path[PATH_MAX];
  int (*real)(int, off64_t) = REAL(ftruncate64);
  if (!journal_of(fd, path)) return real(fd, size);
  pthread_mutex_lock(&lock);
  record(fd, path, NULL, -1, size);
  int result = real(fd, size);
  pthread_mutex_unlock(&lock);
  return result;
}

int ftruncate64(int fd, off64_t size) { return watched_truncate(fd, size); }

int ftruncate(int fd, off_t size) { return watched_truncate(fd, size); }

static int watched_sync(int fd, int (*real)(int)) {
  char path[PATH_MAX];
  if (!journal_of(fd, path)) return real(fd);
  pthread_mutex_lock(&lock);
  int result = real(fd);
  if (result == 0) must(truncate(path, 0) == 0 || access(path, F_OK) != 0, "truncate journal");
  pthread_mutex_unlock(&lock);
  return result;
}

int fsync(int fd) { return watched_sync(fd, REAL(fsync)); }

int fdatasync(int fd) { return watched_sync(fd, REAL(fdatasync)); }
