/* Tries the machine from inside a build's RUN line; says FOUND for each thing that it should not have reached.
 *
 * Its one argument is a file of lines, each `file PATH`, `port ADDRESS PORT`, `secret TEXT`, `mark NAME` or `write PATH`.
 * Static, so that it needs nothing of the image it runs in.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

extern char **environ;
static char buffer[1 << 20];

static int contains(const char *path, const char *text) {
  int file = open(path, O_RDONLY | O_NONBLOCK);
  if (file < 0) return 0;
  ssize_t size = read(file, buffer, sizeof buffer);
  close(file);
  return size > 0 && memmem(buffer, size, text, strlen(text)) != NULL;
}

static void try_file(const char *path) {
  static const char *roots[] = {"", "/proc/1/root", "/proc/self/root", "/../../../../..", "/proc/1/cwd"};
  char whole[4096];
  for (unsigned i = 0; i < sizeof roots / sizeof *roots; i++) {
    snprintf(whole, sizeof whole, "%s%s", roots[i], path);
    int file = open(whole, O_RDONLY | O_NONBLOCK);
    if (file >= 0) {
      printf("FOUND file %s\n", whole);
      close(file);
    }
  }
}

static void try_write(const char *path) {
  int file = open(path, O_WRONLY | O_CREAT, 0644);
  if (file >= 0) {
    printf("FOUND writable %s\n", path);
    close(file);
  }
}

static void gateway(char *address) {
  unsigned target, next;
  FILE *routes = fopen("/proc/net/route", "r");
  strcpy(address, "127.0.0.2");
  if (!routes) return;
  while (fgets(buffer, 512, routes))
    if (sscanf(buffer, "%*s %x %x", &target, &next) == 2 && target == 0 && next != 0)
      inet_ntop(AF_INET, &next, address, INET_ADDRSTRLEN);
  fclose(routes);
}

static void try_port(const char *given, int port) {
  char address[INET_ADDRSTRLEN];
  struct sockaddr_in peer = {.sin_family = AF_INET, .sin_port = htons(port)};
  if (strcmp(given, "gateway") == 0) gateway(address);
  else snprintf(address, sizeof address, "%s", given);
  inet_pton(AF_INET, address, &peer.sin_addr);
  int sock = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), error = 0;
  socklen_t size = sizeof error;
  struct pollfd wait = {.fd = sock, .events = POLLOUT};
  if (connect(sock, (struct sockaddr *)&peer, sizeof peer) != 0 && errno != EINPROGRESS) return;
  /* A refusal is an answer too: whoever sends it has been reached. Nothing at all comes back from behind a wall. */
  if (poll(&wait, 1, 1500) > 0 && getsockopt(sock, SOL_SOCKET, SO_ERROR, &error, &size) == 0)
    if (error == 0) printf("FOUND port %s %d\n", address, port);
  close(sock);
}

static void try_processes(const char *secret, const char *mark) {
  int others = 0;
  struct dirent *entry;
  DIR *processes = opendir("/proc");
  if (!processes) return;
  while ((entry = readdir(processes))) {
    char path[512];
    int number = atoi(entry->d_name);
    if (number <= 0) continue;
    others += number != getpid();
    static const char *names[] = {"environ", "cmdline", "maps", "mountinfo"};
    for (unsigned i = 0; i < 4; i++) {
      snprintf(path, sizeof path, "/proc/%d/%s", number, names[i]);
      if (*secret && number != getpid() && contains(path, secret)) printf("FOUND secret in %s\n", path);
    }
    // Seized and not attached: that would stop it, and for good where we end before it has stopped.
    if (number != getpid() && ptrace(PTRACE_SEIZE, number, 0, 0) == 0) printf("FOUND process %d can be traced\n", number);
  }
  closedir(processes);
  if (others) printf("FOUND %d other processes\n", others);
  for (char **variable = environ; *variable; variable++)
    if ((*secret && strstr(*variable, secret)) || (*mark && strstr(*variable, mark))) printf("FOUND variable %s\n", *variable);
  static const char *places[] = {"/proc/cmdline", "/proc/self/mountinfo", "/proc/mounts", "/etc/hosts", "/run/secrets"};
  for (unsigned i = 0; i < sizeof places / sizeof *places; i++)
    if (*secret && contains(places[i], secret)) printf("FOUND secret in %s\n", places[i]);
}

static void try_kernel(void) {
  FILE *map = fopen("/proc/self/uid_map", "r");
  unsigned inside, outside;
  if (map && fscanf(map, "%u %u", &inside, &outside) == 2 && outside == 0) printf("FOUND this is the machine's root\n");
  if (map) fclose(map);
  struct stat disk;
  if (mknod("/disk", S_IFBLK | 0600, makedev(254, 0)) == 0 || mknod("/disk", S_IFBLK | 0600, makedev(8, 0)) == 0)
    if (stat("/disk", &disk) == 0 && open("/disk", O_RDONLY) >= 0) printf("FOUND the disk as a device\n");
  if (mount("none", "/", NULL, MS_REMOUNT | MS_BIND, NULL) == 0) printf("FOUND mount allowed\n");
  if (mount("tmpfs", "/proc", "tmpfs", 0, NULL) == 0) printf("FOUND mount of tmpfs allowed\n");
  if (sethostname("owned", 5) == 0) printf("FOUND hostname can be set\n");
  if (open("/proc/sysrq-trigger", O_WRONLY) >= 0) printf("FOUND sysrq\n");
  if (open("/proc/kcore", O_RDONLY) >= 0 && contains("/proc/kcore", "CORE")) printf("FOUND the kernel's memory\n");
  if (open("/proc/sys/kernel/core_pattern", O_WRONLY) >= 0) printf("FOUND core_pattern\n");
  if (open("/sys/fs/cgroup/memory/memory.limit_in_bytes", O_WRONLY) >= 0) printf("FOUND limits can be changed\n");
  if (unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0 && mount("tmpfs", "/proc", "tmpfs", 0, NULL) == 0)
    printf("FOUND mount allowed in a user namespace of its own\n");
}

int main(int count, char **arguments) {
  char line[2048], what[16], first[1024], second[64];
  FILE *targets = count > 1 ? fopen(arguments[1], "r") : NULL;
  setvbuf(stdout, NULL, _IOLBF, 0);
  if (!targets) return 2;
  char secret[256] = "", mark[256] = "";
  while (fgets(line, sizeof line, targets)) {
    int words = sscanf(line, "%15s %1023s %63s", what, first, second);
    if (words < 2) continue;
    if (strcmp(what, "file") == 0) try_file(first);
    if (strcmp(what, "write") == 0) try_write(first);
    if (strcmp(what, "port") == 0 && words == 3) try_port(first, atoi(second));
    if (strcmp(what, "secret") == 0) snprintf(secret, sizeof secret, "%.255s", first);
    if (strcmp(what, "mark") == 0) snprintf(mark, sizeof mark, "%.255s", first);
  }
  fclose(targets);
  try_processes(secret, mark);
  if (count < 3) try_kernel(); /* not where the tests run it on the machine itself, to see that it finds what is there */
  printf("the probe is done\n");
  return 0;
}
