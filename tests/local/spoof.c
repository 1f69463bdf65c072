/* Sends one datagram in somebody else's name: `spoof SOURCE TARGET PORT`. Needs CAP_NET_RAW; static, as the probe. */
#include <arpa/inet.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

int main(int count, char **arguments) {
  if (count != 4) return 2;
  struct { struct iphdr ip; struct udphdr udp; char text[8]; } __attribute__((packed)) datagram;
  memset(&datagram, 0, sizeof datagram);
  datagram.ip.version = 4;
  datagram.ip.ihl = 5;
  datagram.ip.ttl = 64;
  datagram.ip.protocol = IPPROTO_UDP;
  datagram.ip.tot_len = htons(sizeof datagram);
  datagram.ip.saddr = inet_addr(arguments[1]);
  datagram.ip.daddr = inet_addr(arguments[2]);
  datagram.udp.source = htons(4242);
  datagram.udp.dest = htons(atoi(arguments[3]));
  datagram.udp.len = htons(sizeof datagram.udp + sizeof datagram.text);
  strcpy(datagram.text, "spoofed");
  struct sockaddr_in target = {.sin_family = AF_INET, .sin_addr.s_addr = datagram.ip.daddr};
  int sock = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
  if (sock < 0 || sendto(sock, &datagram, sizeof datagram, 0, (struct sockaddr *)&target, sizeof target) < 0) {
    perror("spoof");
    return 1;
  }
  puts("sent");
  return 0;
}
