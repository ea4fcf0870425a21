/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * locks DIR: what becomes of LMDB's lock when a process is killed that has it.
 * Prints "goes on" or "waits" for the next one that wants to write while
 * another has the database open, and again when nobody else has it open.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include "lmdb.h"

static const char *dir;

static MDB_env *
open_env(void)
{
	MDB_env *env;

	if (mdb_env_create(&env) || mdb_env_open(env, dir, 0, 0600))
		_exit(3);
	return env;
}

/* A process that has the database open, and the lock if it is to write. */
static pid_t
holder(int writes)
{
	int ends[2];
	char ready;
	pid_t pid;

	if (pipe(ends) || (pid = fork()) < 0)
		exit(3);
	if (pid == 0) {
		MDB_txn *txn;
		MDB_env *env = open_env();

		if (writes && mdb_txn_begin(env, NULL, 0, &txn))
			_exit(3);
		if (write(ends[1], "r", 1) != 1)
			_exit(3);
		alarm(30);
		for (;;)
			pause();
	}
	if (read(ends[0], &ready, 1) != 1)
		exit(3);
	return pid;
}

static void
end(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static void
try_to_write(void)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		MDB_txn *txn;

		alarm(2);
		_exit(mdb_txn_begin(open_env(), NULL, 0, &txn) ? 3 : 0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		exit(3);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		puts("goes on");
	else if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
		puts("waits");
	else
		exit(3);
}

int
main(int argc, char **argv)
{
	pid_t other;

	if (argc != 2)
		return 2;
	dir = argv[1];
	setvbuf(stdout, NULL, _IONBF, 0);
	other = holder(0);
	end(holder(1));
	try_to_write();
	end(other);
	try_to_write();
	return 0;
}
