/*
 * Preloaded into the server by the tests: what it gives to syslog(3) goes to
 * the file that POSTGREY_SYSLOG names, each line as "PRIORITY FORMAT: TEXT".
 */
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *log_path;

/* The server does not keep its environment. */
__attribute__((constructor)) static void remember_environment(void)
{
    const char *path = getenv("POSTGREY_SYSLOG");

    log_path = path ? strdup(path) : NULL;
}

void syslog(int priority, const char *format, ...)
{
    char text[8192], line[8300];
    int length, fd;
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    length = snprintf(line, sizeof line, "%d %s: %s\n", priority, format, text);
    if (log_path && (fd = open(log_path, O_WRONLY | O_APPEND | O_CLOEXEC)) >= 0) {
        if (write(fd, line, length) != length)
            abort();
        close(fd);
    }
}
