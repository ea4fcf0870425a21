/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * For FreeBSD 11.1 and later, in front of the sources of LMDB (make freebsd).
 *
 * Where <sys/param.h> defines BSD, LMDB 0.9 takes POSIX semaphores, of which
 * nobody takes back the one of a process that is killed. FreeBSD has robust
 * mutexes, as Solaris and Linux have: without BSD, LMDB takes these.
 */
#ifdef MDB_IDL_LOGN
#include <sys/types.h>
#include <sys/param.h>
#undef BSD
#define MDB_FDATASYNC fsync
#endif
