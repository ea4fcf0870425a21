/*
 * Preloaded into the server by the tests: what it gives to syslog(3) goes to
 * the file that POSTGREY_SYSLOG names, each line as "PRIORITY FORMAT: TEXT".
 */
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void syslog(int priority, const char *format, ...)
{
    char text[8192], line[8300];
    const char *path = getenv("POSTGREY_SYSLOG");
    int length, fd;
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    length = snprintf(line, sizeof line, "%d %s: %s\n", priority, format, text);
    if (path && (fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC)) >= 0) {
        if (write(fd, line, length) != length)
            abort();
        close(fd);
    }
}
