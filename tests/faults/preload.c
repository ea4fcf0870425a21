/*
 * Preloaded into the server by the tests: lets the calls that write its
 * database fail, and keeps an image of the database at each flush.
 *
 * POSTGREY_FAULTS names a file that may hold a line "data ERRNO", "meta ERRNO"
 * or "sync ERRNO": while it does, pages of data or of meta data are not
 * written, or not flushed. With "map ERRNO" the data file cannot be mapped.
 * With "hang MILLISECONDS" each flush of the data file takes that much longer.
 *
 * POSTGREY_IMAGES names a directory, POSTGREY_DBDIR that of the database. At
 * each flush of a file there, or of the directory itself, a directory "image.N"
 * keeps all files whose names begin with "data.mdb", under the numbers of their
 * inodes. Its file "index" says what was flushed, an inode or "dir"; how many
 * requests had been answered, as the file "answered" in POSTGREY_IMAGES says;
 * and the name and inode of each file. Of the others, which hold the locks of
 * the process, it has the names alone: closing one would give its locks back.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static char *faults, *images, *dbdir;

/* The server does not keep its environment. */
__attribute__((constructor)) static void remember_environment(void)
{
    faults = getenv("POSTGREY_FAULTS");
    faults = faults ? strdup(faults) : NULL;
    images = getenv("POSTGREY_IMAGES");
    images = images ? strdup(images) : NULL;
    dbdir = getenv("POSTGREY_DBDIR");
    dbdir = dbdir ? strdup(dbdir) : NULL;
}

/* The two meta pages of an environment lie in front. */
#define META_END 8192

/* The path of an open file; false if there is none. */
static int path_of(int fd, char *path, size_t size)
{
    char link[64];
    ssize_t length;

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, size - 1);
    path[length > 0 ? length : 0] = 0;
    return length > 0;
}

static int ends_with(const char *path, const char *name)
{
    size_t length = strlen(path), end = strlen(name);

    return length > end && strcmp(path + length - end, name) == 0;
}

static int is_data_file(int fd)
{
    char path[4096];

    return path_of(fd, path, sizeof path) && ends_with(path, "/data.mdb");
}

/* The number behind a word in the file of faults: the errno a call shall fail
 * with, or the time of "hang"; 0 if it is not there. */
static int fault_of(const char *call)
{
    char word[16];
    int number, found = 0;
    FILE *file = faults ? fopen(faults, "re") : NULL;

    if (!file)
        return 0;
    while (fscanf(file, "%15s %d", word, &number) == 2)
        if (strcmp(word, call) == 0)
            found = number;
    fclose(file);
    return found;
}

static int fails(int fd, off_t offset)
{
    int saved = errno, number = 0;

    if (is_data_file(fd))
        number = fault_of(offset < META_END ? "meta" : "data");
    errno = number ? number : saved;
    return number;
}

/* Nobody writes while an image is kept: the files in it are of one moment. */
static void lock_images(short kind)
{
    static int file = -1;
    char path[4096];
    struct flock lock = { .l_type = kind, .l_whence = SEEK_SET, .l_len = 1 };

    if (!images)
        return;
    if (file < 0) {
        snprintf(path, sizeof path, "%s/lock", images);
        file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    }
    while (fcntl(file, F_SETLKW, &lock) < 0 && errno == EINTR)
        ;
}

#define WRAP_WRITE(name, parts_type, length_type)                           \
    ssize_t name(int fd, parts_type parts, length_type length, off_t offset) \
    {                                                                       \
        static ssize_t (*real)(int, parts_type, length_type, off_t);        \
        ssize_t result;                                                     \
        int saved;                                                          \
        if (!real)                                                          \
            real = dlsym(RTLD_NEXT, #name);                                 \
        if (fails(fd, offset))                                              \
            return -1;                                                      \
        lock_images(F_RDLCK);                                               \
        result = real(fd, parts, length, offset);                           \
        saved = errno;                                                      \
        lock_images(F_UNLCK);                                               \
        errno = saved;                                                      \
        return result;                                                      \
    }
WRAP_WRITE(pwrite, const void *, size_t)
WRAP_WRITE(pwrite64, const void *, size_t)
WRAP_WRITE(pwritev, const struct iovec *, int)
WRAP_WRITE(pwritev64, const struct iovec *, int)

#define WRAP_MMAP(name)                                                     \
    void *name(void *at, size_t length, int protection, int flags, int fd,  \
        off_t offset)                                                       \
    {                                                                       \
        static void *(*real)(void *, size_t, int, int, int, off_t);         \
        int number;                                                         \
        if (!real)                                                          \
            real = dlsym(RTLD_NEXT, #name);                                 \
        if (fd >= 0 && is_data_file(fd) && (number = fault_of("map"))) {    \
            errno = number;                                                 \
            return MAP_FAILED;                                              \
        }                                                                   \
        return real(at, length, protection, flags, fd, offset);             \
    }
WRAP_MMAP(mmap)
WRAP_MMAP(mmap64)

static void copy_file(int from, const char *to)
{
    char octets[65536];
    ssize_t length;
    off_t offset = 0;
    int file = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    while (file >= 0 && (length = pread(from, octets, sizeof octets, offset)) > 0) {
        if (write(file, octets, length) != length)
            abort();
        offset += length;
    }
    if (file < 0 || close(file) < 0)
        abort();
}

/* Images are numbered in their order by whoever makes the next directory. */
static void keep_image(int flushed)
{
    char path[4400], to[4400], image[4200], text[32] = "0";
    static int next;
    int file;
    struct stat status;
    struct dirent *entry;
    DIR *folder;
    FILE *index;

    if (!images || !path_of(flushed, path, sizeof path)
        || strncmp(path, dbdir, strlen(dbdir)) != 0)
        return;
    lock_images(F_WRLCK);
    snprintf(image, sizeof image, "%s/answered", images);
    if ((file = open(image, O_RDONLY | O_CLOEXEC)) >= 0) {
        ssize_t length = read(file, text, sizeof text - 1);
        text[length > 0 ? length : 0] = 0;
        close(file);
    }
    do {
        snprintf(image, sizeof image, "%s/image.%06d", images, next++);
    } while (mkdir(image, 0755) < 0 && errno == EEXIST);
    snprintf(path, sizeof path, "%s/part", image);
    if (!(index = fopen(path, "we")) || !(folder = opendir(dbdir)) || fstat(flushed, &status) < 0)
        abort();
    if (S_ISDIR(status.st_mode))
        fprintf(index, "dir %s\n", text);
    else
        fprintf(index, "%llu %s\n", (unsigned long long) status.st_ino, text);
    while ((entry = readdir(folder))) {
        snprintf(path, sizeof path, "%s/%s", dbdir, entry->d_name);
        if (lstat(path, &status) < 0 || !S_ISREG(status.st_mode))
            continue;
        if (strncmp(entry->d_name, "data.mdb", 8) == 0) {
            if ((file = open(path, O_RDONLY | O_CLOEXEC)) < 0)
                continue;
            snprintf(path, sizeof path, "%s/%llu", image, (unsigned long long) status.st_ino);
            copy_file(file, path);
            close(file);
        }
        fprintf(index, "%s %llu\n", entry->d_name, (unsigned long long) status.st_ino);
    }
    closedir(folder);
    if (fclose(index) != 0)
        abort();
    /* With this it is whole: the process may have been killed meanwhile. */
    snprintf(path, sizeof path, "%s/part", image);
    snprintf(to, sizeof to, "%s/index", image);
    if (rename(path, to) < 0)
        abort();
    lock_images(F_UNLCK);
}

/* The errno a flush shall fail with, or 0; it may take its time first. */
static int flush_fault_of(int fd)
{
    struct timespec left;
    int milliseconds;

    if (!is_data_file(fd))
        return 0;
    if ((milliseconds = fault_of("hang")) > 0) {
        left.tv_sec = milliseconds / 1000;
        left.tv_nsec = milliseconds % 1000 * 1000000L;
        while (nanosleep(&left, &left) < 0 && errno == EINTR)
            ;
    }
    return fault_of("sync");
}

#define WRAP_FLUSH(name)                                                    \
    int name(int fd)                                                        \
    {                                                                       \
        static int (*real)(int);                                            \
        int number, result, saved;                                          \
        if (!real)                                                          \
            real = dlsym(RTLD_NEXT, #name);                                 \
        if ((number = flush_fault_of(fd)) != 0) {                           \
            errno = number;                                                 \
            return -1;                                                      \
        }                                                                   \
        result = real(fd);                                                  \
        saved = errno;                                                      \
        keep_image(fd);                                                     \
        errno = saved;                                                      \
        return result;                                                      \
    }
WRAP_FLUSH(fdatasync)
WRAP_FLUSH(fsync)
