/* Makes one system call on a database's files go wrong: the nth, in a way that is told.
 *
 * Preloaded (LD_PRELOAD) into a process that writes a SQLite database. It counts the calls on the
 * write path: opening for writing with creation, write, pwrite, ftruncate, fsync, fdatasync and
 * unlink, on files whose path begins with the database's (its -wal, -shm and -journal as well).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

enum { NONE, COUNT, FAIL, KILL_BEFORE, KILL_AFTER, TEAR };

static char watched[PATH_MAX];
static atomic_int mode;
static atomic_int error;
static atomic_int lasting;
static atomic_long fatal;
static atomic_long seen;
static char last[64];

/* `path`: the database's. `nth`: from 1. `errnum`: of FAIL. `stays`: all calls from the nth on. */
void fault_arm(const char *path, int how, long nth, int errnum, int stays)
{
    strncpy(watched, path, sizeof watched - 1);
    seen = 0;
    fatal = nth;
    error = errnum;
    lasting = stays;
    mode = how;
}

long fault_seen(void) { return seen; }

/* The call that the fault befell, or the last one counted. */
const char *fault_last(void) { return last; }

static int is_watched(const char *path)
{
    return strncmp(path, watched, strlen(watched)) == 0;
}

static int fd_is_watched(int fd)
{
    char link[64], path[PATH_MAX];
    if (mode == NONE)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return is_watched(path);
}

static void die(void)
{
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

/* Whether this call is the one. With KILL_BEFORE it does not return. */
static int befalls(const char *name)
{
    long number = ++seen;
    int now = number == fatal || (lasting && number > fatal);
    if (!now && mode != COUNT)
        return 0;
    strncpy(last, name, sizeof last - 1);
    if (mode == COUNT)
        return 0;
    if (mode == KILL_BEFORE)
        die();
    return 1;
}

/* For calls that write nothing which could be torn. */
#define AROUND(type, watching, name, call)       \
    do {                                         \
        if (!(watching) || !befalls(name))       \
            return call;                         \
        if (mode == FAIL) {                      \
            errno = error;                       \
            return -1;                           \
        }                                        \
        type result = call;                      \
        die();                                   \
        return result;                           \
    } while (0)

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static ssize_t written(ssize_t result)
{
    die();
    return result;
}

/* A torn write ends in the middle, and so does the process. */
#define WRITING(name, watching, whole, half)     \
    do {                                         \
        if (!(watching) || !befalls(name))       \
            return whole;                        \
        if (mode == FAIL) {                      \
            errno = error;                       \
            return -1;                           \
        }                                        \
        return written(mode == TEAR ? half : whole); \
    } while (0)

ssize_t write(int fd, const void *data, size_t size)
{
    WRITING("write", fd_is_watched(fd), NEXT(write)(fd, data, size),
            NEXT(write)(fd, data, size / 2));
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    WRITING("pwrite", fd_is_watched(fd), NEXT(pwrite)(fd, data, size, offset),
            NEXT(pwrite)(fd, data, size / 2, offset));
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset)
{
    WRITING("pwrite", fd_is_watched(fd), NEXT(pwrite64)(fd, data, size, offset),
            NEXT(pwrite64)(fd, data, size / 2, offset));
}

int ftruncate(int fd, off_t size)
{
    AROUND(int, fd_is_watched(fd), "ftruncate", NEXT(ftruncate)(fd, size));
}

int ftruncate64(int fd, off64_t size)
{
    AROUND(int, fd_is_watched(fd), "ftruncate", NEXT(ftruncate64)(fd, size));
}

int fsync(int fd) { AROUND(int, fd_is_watched(fd), "fsync", NEXT(fsync)(fd)); }

int fdatasync(int fd) { AROUND(int, fd_is_watched(fd), "fdatasync", NEXT(fdatasync)(fd)); }

int unlink(const char *path)
{
    AROUND(int, mode != NONE && is_watched(path), "unlink", NEXT(unlink)(path));
}

#define OPENING(name)                                                             \
    int name(const char *path, int flags, ...)                                    \
    {                                                                             \
        va_list rest;                                                             \
        va_start(rest, flags);                                                    \
        int makes = flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE;           \
        int permissions = makes ? va_arg(rest, int) : 0;                          \
        va_end(rest);                                                             \
        AROUND(int, mode != NONE && flags & O_CREAT && is_watched(path), "open",  \
               NEXT(name)(path, flags, permissions));                             \
    }

OPENING(open)
OPENING(open64)
