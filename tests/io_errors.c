/* Runs a program some of whose system calls fail when they are told to.
 *
 *     io_errors RULE PROGRAM ARGUMENTS...
 *
 * RULE is a file of one line: the name of a system call, the number of an error, and which call of that
 * name fails, counted from when the line was written; 0 fails them all. An empty file fails none.
 *
 * A library that is loaded before libc would not do: the program makes most of its system calls itself.
 * So the kernel asks a process beside it about each of them. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static const struct {
    const char *name;
    int number;
} CALLS[] = {
    {"pwrite64", SYS_pwrite64}, {"fallocate", SYS_fallocate}, {"syncfs", SYS_syncfs}, {"fdatasync", SYS_fdatasync}, {"flock", SYS_flock},
    {"renameat2", SYS_renameat2},
#ifdef SYS_renameat
    {"renameat", SYS_renameat},
#endif
};
#define CALLS_NUM (sizeof CALLS / sizeof *CALLS)

/* The error of this call, or 0 where it is to be done. */
static int error_of(const char *rule, int number) {
    static char last[64];
    static long count;
    char line[64] = "", name[32] = "";
    int error = 0;
    long which = 0;
    int file = open(rule, O_RDONLY | O_CLOEXEC);
    if (file >= 0) {
        if (read(file, line, sizeof line - 1) < 0) line[0] = 0;
        close(file);
    }
    if (strcmp(line, last) != 0) {
        strcpy(last, line);
        count = 0;
    }
    if (sscanf(line, "%31s %d %ld", name, &error, &which) != 3) return 0;
    for (size_t i = 0; i < CALLS_NUM; i++)
        if (CALLS[i].number == number && strcmp(CALLS[i].name, name) == 0) {
            count++;
            return which == 0 || which == count ? error : 0;
        }
    return 0;
}

static void supervise(const char *rule, int listener) {
    for (;;) {
        struct pollfd ready = {.fd = listener, .events = POLLIN};
        if (poll(&ready, 1, -1) < 0) continue;
        if (!(ready.revents & POLLIN)) return;
        struct seccomp_notif asked;
        struct seccomp_notif_resp answer;
        memset(&asked, 0, sizeof asked);
        memset(&answer, 0, sizeof answer);
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &asked) < 0) continue;
        answer.id = asked.id;
        answer.error = -error_of(rule, asked.data.nr);
        if (answer.error == 0) answer.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
        (void)ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
    }
}

static int listen_to_calls(void) {
    struct sock_filter filter[CALLS_NUM * 2 + 2];
    size_t len = 0;
    filter[len++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < CALLS_NUM; i++) {
        filter[len++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, CALLS[i].number, 0, 1);
        filter[len++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
    }
    filter[len++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = {.len = len, .filter = filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) return -1;
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
}

/* Sends a descriptor, or takes one where there is none to send. */
static int pass_on(int socket, int descriptor) {
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } room;
    char byte = 0;
    struct iovec iov = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = room.bytes, .msg_controllen = sizeof room.bytes};
    memset(&room, 0, sizeof room);
    if (descriptor < 0) {
        if (recvmsg(socket, &message, 0) != 1 || !CMSG_FIRSTHDR(&message)) return -1;
        memcpy(&descriptor, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof descriptor);
        return descriptor;
    }
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof descriptor);
    memcpy(CMSG_DATA(head), &descriptor, sizeof descriptor);
    return sendmsg(socket, &message, 0) == 1 ? 0 : -1;
}

int main(int argc, char **argv) {
    int pair[2];
    if (argc < 3 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) return 77;
    pid_t pid = fork();
    if (pid < 0) return 77;
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        /* Whoever reads the program's output waits for its end alone. */
        for (int i = 0; i < 3; i++) close(i);
        close(pair[0]);
        int listener = pass_on(pair[1], -1);
        if (listener >= 0) supervise(argv[1], listener);
        _exit(0);
    }
    int listener = listen_to_calls();
    if (listener < 0 || pass_on(pair[0], listener) < 0) return 77;
    close(listener);
    execv(argv[2], argv + 2);
    return 77;
}
