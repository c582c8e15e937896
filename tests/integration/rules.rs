//! Requests and the rules they make: every row of the grammar's table, sent with
//! curl and compared with what the kernel says, in both variants of iptables.

use crate::host::{Host, Reply, Rfw, in_both_variants, of_ipv6};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

/// Requests that make a rule: the request, and the line of `iptables -S` without
/// its comment.
const MADE: &str = "
    PUT  /drop/input/any/11.22.33.44                       -A INPUT -s 11.22.33.44/32 -j DROP
    PUT  /drop/input/eth/11.22.33.44                       -A INPUT -s 11.22.33.44/32 -i eth+ -j DROP
    PUT  /drop/input/eth0/11.22.33.44                      -A INPUT -s 11.22.33.44/32 -i eth0 -j DROP
    PUT  /accept/input/any/11.22.33.44                     -A INPUT -s 11.22.33.44/32 -j ACCEPT
    PUT  /accept/input/eth/11.22.33.44                     -A INPUT -s 11.22.33.44/32 -i eth+ -j ACCEPT
    PUT  /accept/input/eth0/11.22.33.44                    -A INPUT -s 11.22.33.44/32 -i eth0 -j ACCEPT
    PUT  /reject/input/any/11.22.33.44                     -A INPUT -s 11.22.33.44/32 -j REJECT --reject-with icmp-port-unreachable
    PUT  /reject/input/eth/11.22.33.44                     -A INPUT -s 11.22.33.44/32 -i eth+ -j REJECT --reject-with icmp-port-unreachable
    PUT  /reject/input/eth0/11.22.33.44                    -A INPUT -s 11.22.33.44/32 -i eth0 -j REJECT --reject-with icmp-port-unreachable
    PUT  /drop/output/any/11.22.33.44                      -A OUTPUT -d 11.22.33.44/32 -j DROP
    PUT  /drop/output/eth/11.22.33.44                      -A OUTPUT -d 11.22.33.44/32 -o eth+ -j DROP
    PUT  /drop/output/eth0/11.22.33.44                     -A OUTPUT -d 11.22.33.44/32 -o eth0 -j DROP
    PUT  /accept/output/any/192.168.0.0/24                 -A OUTPUT -d 192.168.0.0/24 -j ACCEPT
    PUT  /accept/output/eth/11.22.33.44                    -A OUTPUT -d 11.22.33.44/32 -o eth+ -j ACCEPT
    PUT  /accept/output/eth0/11.22.33.44                   -A OUTPUT -d 11.22.33.44/32 -o eth0 -j ACCEPT
    PUT  /reject/output/any/11.22.33.44                    -A OUTPUT -d 11.22.33.44/32 -j REJECT --reject-with icmp-port-unreachable
    PUT  /reject/output/eth/11.22.33.44                    -A OUTPUT -d 11.22.33.44/32 -o eth+ -j REJECT --reject-with icmp-port-unreachable
    PUT  /reject/output/eth0/11.22.33.44                   -A OUTPUT -d 11.22.33.44/32 -o eth0 -j REJECT --reject-with icmp-port-unreachable
    PUT  /drop/forward/any/11.22.33.44                     -A FORWARD -s 11.22.33.44/32 -j DROP
    PUT  /drop/forward/tun/11.22.33.44                     -A FORWARD -s 11.22.33.44/32 -i tun+ -j DROP
    PUT  /drop/forward/tun0/11.22.33.44                    -A FORWARD -s 11.22.33.44/32 -i tun0 -j DROP
    PUT  /accept/forward/any/11.22.33.44                   -A FORWARD -s 11.22.33.44/32 -j ACCEPT
    PUT  /accept/forward/tun/11.22.33.44                   -A FORWARD -s 11.22.33.44/32 -i tun+ -j ACCEPT
    PUT  /accept/forward/tun0/11.22.33.44                  -A FORWARD -s 11.22.33.44/32 -i tun0 -j ACCEPT
    PUT  /reject/forward/any/11.22.33.44                   -A FORWARD -s 11.22.33.44/32 -j REJECT --reject-with icmp-port-unreachable
    PUT  /reject/forward/tun/11.22.33.44                   -A FORWARD -s 11.22.33.44/32 -i tun+ -j REJECT --reject-with icmp-port-unreachable
    PUT  /reject/forward/tun0/11.22.33.44                  -A FORWARD -s 11.22.33.44/32 -i tun0 -j REJECT --reject-with icmp-port-unreachable

    PUT  /drop/input/any/2001:db8::1                       -A INPUT -s 2001:db8::1/128 -j DROP
    PUT  /drop/input/eth/2001:db8::1                       -A INPUT -s 2001:db8::1/128 -i eth+ -j DROP
    PUT  /drop/input/eth0/2001:db8::1                      -A INPUT -s 2001:db8::1/128 -i eth0 -j DROP
    PUT  /accept/input/any/2001:db8::1                     -A INPUT -s 2001:db8::1/128 -j ACCEPT
    PUT  /accept/input/eth0/2001:db8::1                    -A INPUT -s 2001:db8::1/128 -i eth0 -j ACCEPT
    PUT  /reject/input/any/2001:db8::1                     -A INPUT -s 2001:db8::1/128 -j REJECT --reject-with icmp6-port-unreachable
    PUT  /reject/input/eth/2001:db8::/48                   -A INPUT -s 2001:db8::/48 -i eth+ -j REJECT --reject-with icmp6-port-unreachable
    PUT  /drop/output/any/2001:db8::1                      -A OUTPUT -d 2001:db8::1/128 -j DROP
    PUT  /drop/output/eth0/2001:db8::1                     -A OUTPUT -d 2001:db8::1/128 -o eth0 -j DROP
    PUT  /accept/output/eth/2001:db8::1                    -A OUTPUT -d 2001:db8::1/128 -o eth+ -j ACCEPT
    PUT  /reject/output/any/2001:db8::1                    -A OUTPUT -d 2001:db8::1/128 -j REJECT --reject-with icmp6-port-unreachable
    PUT  /drop/forward/any/2001:db8::1                     -A FORWARD -s 2001:db8::1/128 -j DROP
    PUT  /accept/forward/tun/2001:db8::1                   -A FORWARD -s 2001:db8::1/128 -i tun+ -j ACCEPT
    PUT  /reject/forward/tun0/2001:db8::1                  -A FORWARD -s 2001:db8::1/128 -i tun0 -j REJECT --reject-with icmp6-port-unreachable

    PUT  /drop/input/a/1.2.3.4                             -A INPUT -s 1.2.3.4/32 -i a+ -j DROP
    PUT  /drop/input/7/1.2.3.4                             -A INPUT -s 1.2.3.4/32 -i 7 -j DROP
    PUT  /drop/input/Eth/1.2.3.4                           -A INPUT -s 1.2.3.4/32 -i Eth+ -j DROP
    PUT  /drop/input/anyway/1.2.3.4                        -A INPUT -s 1.2.3.4/32 -i anyway+ -j DROP
    PUT  /drop/input/list/1.2.3.4                          -A INPUT -s 1.2.3.4/32 -i list+ -j DROP
    PUT  /drop/input/eth0.100/1.2.3.4                      -A INPUT -s 1.2.3.4/32 -i eth0.100 -j DROP
    PUT  /drop/input/br-lan/1.2.3.4                        -A INPUT -s 1.2.3.4/32 -i br-lan+ -j DROP
    PUT  /drop/input/wg_home/1.2.3.4                       -A INPUT -s 1.2.3.4/32 -i wg_home+ -j DROP
    PUT  /drop/input/veth1@if2/1.2.3.4                     -A INPUT -s 1.2.3.4/32 -i veth1@if2 -j DROP
    PUT  /drop/input/eth0:1/1.2.3.4                        -A INPUT -s 1.2.3.4/32 -i eth0:1 -j DROP
    PUT  /drop/input/eth0:/2001:db8::1                     -A INPUT -s 2001:db8::1/128 -i eth0:+ -j DROP
    PUT  /drop/input/_-/1.2.3.4                            -A INPUT -s 1.2.3.4/32 -i _-+ -j DROP
    PUT  /drop/input/.x/1.2.3.4                            -A INPUT -s 1.2.3.4/32 -i .x+ -j DROP
    PUT  /drop/input/abcdefghijklmn/1.2.3.4                -A INPUT -s 1.2.3.4/32 -i abcdefghijklmn+ -j DROP
    PUT  /drop/input/abcdefghijklmno/1.2.3.4               -A INPUT -s 1.2.3.4/32 -i abcdefghijklmno -j DROP
    PUT  /drop/input/abcdefghijklmn0/1.2.3.4               -A INPUT -s 1.2.3.4/32 -i abcdefghijklmn0 -j DROP
    PUT  /drop/output/abcdefghijklmno/2001:db8::1          -A OUTPUT -d 2001:db8::1/128 -o abcdefghijklmno -j DROP
    PUT  /drop/output/abcdefghijklmn/2001:db8::1           -A OUTPUT -d 2001:db8::1/128 -o abcdefghijklmn+ -j DROP

    PUT  /drop/input/any/1.2.3.4/9                         -A INPUT -s 1.0.0.0/9 -j DROP
    PUT  /drop/input/any/0.0.0.0/9                         -A INPUT -s 0.0.0.0/9 -j DROP
    PUT  /drop/input/any/255.255.255.255/9                 -A INPUT -s 255.128.0.0/9 -j DROP
    PUT  /drop/input/any/255.255.255.255                   -A INPUT -s 255.255.255.255/32 -j DROP
    PUT  /drop/input/any/1.2.3.4/16                        -A INPUT -s 1.2.0.0/16 -j DROP
    PUT  /drop/input/any/44.55.66.77/24                    -A INPUT -s 44.55.66.0/24 -j DROP
    PUT  /drop/input/any/1.2.3.5/31                        -A INPUT -s 1.2.3.4/31 -j DROP
    PUT  /drop/input/any/1.2.3.4/32                        -A INPUT -s 1.2.3.4/32 -j DROP
    PUT  /drop/output/any/1.2.3.4/9                        -A OUTPUT -d 1.0.0.0/9 -j DROP
    PUT  /drop/input/any/2001:db8::/16                     -A INPUT -s 2001::/16 -j DROP
    PUT  /drop/input/any/::/16                             -A INPUT -s ::/16 -j DROP
    PUT  /drop/input/any/ffff::ffff/16                     -A INPUT -s ffff::/16 -j DROP
    PUT  /drop/input/any/2001:db8:ffff::/33                -A INPUT -s 2001:db8:8000::/33 -j DROP
    PUT  /drop/input/any/2001:db8::ffff/64                 -A INPUT -s 2001:db8::/64 -j DROP
    PUT  /drop/input/any/2001:db8::1/127                   -A INPUT -s 2001:db8::/127 -j DROP
    PUT  /drop/input/any/2001:db8::1/128                   -A INPUT -s 2001:db8::1/128 -j DROP
    PUT  /drop/output/any/2001:db8::/16                    -A OUTPUT -d 2001::/16 -j DROP
    PUT  /drop/input/any/2001:DB8:0:0::00AB                -A INPUT -s 2001:db8::ab/128 -j DROP
    PUT  /drop/input/any/::102:304                         -A INPUT -s ::1.2.3.4/128 -j DROP
    PUT  /drop/input/any/::1.2.3.4                         -A INPUT -s ::1.2.3.4/128 -j DROP
    PUT  /drop/input/any/fe80::1                           -A INPUT -s fe80::1/128 -j DROP
    PUT  /drop/input/any/::ffff:1.2.3.4                    -A INPUT -s 1.2.3.4/32 -j DROP
    PUT  /drop/input/any/::FFFF:102:304                    -A INPUT -s 1.2.3.4/32 -j DROP
    PUT  /drop/input/any/::ffff:1.2.3.4/128                -A INPUT -s 1.2.3.4/32 -j DROP
    PUT  /drop/input/any/::ffff:1.2.3.4/120                -A INPUT -s 1.2.3.0/24 -j DROP
    PUT  /drop/input/any/::ffff:1.2.3.4/105                -A INPUT -s 1.0.0.0/9 -j DROP

    PUT  /drop/forward/any/1.2.3.0/24                      -A FORWARD -s 1.2.3.0/24 -j DROP
    PUT  /drop/forward/any/1.2.3.4/eth1                    -A FORWARD -s 1.2.3.4/32 -o eth1 -j DROP
    PUT  /drop/forward/any/1.2.3.4/24/eth1                 -A FORWARD -s 1.2.3.0/24 -o eth1 -j DROP
    PUT  /drop/forward/any/1.2.3.4/any                     -A FORWARD -s 1.2.3.4/32 -j DROP
    PUT  /drop/forward/eth/1.2.3.4/ppp                     -A FORWARD -s 1.2.3.4/32 -i eth+ -o ppp+ -j DROP
    PUT  /drop/forward/eth0/1.2.3.4/eth1/5.6.7.8           -A FORWARD -s 1.2.3.4/32 -d 5.6.7.8/32 -i eth0 -o eth1 -j DROP
    PUT  /drop/forward/eth0/1.2.3.4/eth1/5.6.7.8/16        -A FORWARD -s 1.2.3.4/32 -d 5.6.0.0/16 -i eth0 -o eth1 -j DROP
    PUT  /drop/forward/any/1.2.3.4/24/any/5.6.7.8/9        -A FORWARD -s 1.2.3.0/24 -d 5.0.0.0/9 -j DROP
    PUT  /drop/forward/any/1.2.3.4/any/5.6.7.8             -A FORWARD -s 1.2.3.4/32 -d 5.6.7.8/32 -j DROP
    PUT  /drop/forward/any/1.2.3.4/any/1.2.3.4             -A FORWARD -s 1.2.3.4/32 -d 1.2.3.4/32 -j DROP
    PUT  /drop/forward/eth0/1.2.3.4/any/5.6.7.8            -A FORWARD -s 1.2.3.4/32 -d 5.6.7.8/32 -i eth0 -j DROP
    PUT  /accept/forward/ppp/1.2.3.0/24/eth0/5.5.5.5       -A FORWARD -s 1.2.3.0/24 -d 5.5.5.5/32 -i ppp+ -o eth0 -j ACCEPT
    PUT  /reject/forward/any/1.2.3.4/any/5.6.7.8           -A FORWARD -s 1.2.3.4/32 -d 5.6.7.8/32 -j REJECT --reject-with icmp-port-unreachable
    PUT  /drop/forward/any/0.0.0.0/any/5.6.7.8             -A FORWARD -d 5.6.7.8/32 -j DROP
    PUT  /drop/forward/eth0/0.0.0.0/any/5.6.7.0/24         -A FORWARD -d 5.6.7.0/24 -i eth0 -j DROP
    PUT  /drop/forward/any/1.2.3.4/any/0.0.0.0             -A FORWARD -s 1.2.3.4/32 -j DROP
    PUT  /drop/forward/any/1.2.3.4/eth1/0.0.0.0            -A FORWARD -s 1.2.3.4/32 -o eth1 -j DROP
    PUT  /drop/forward/any/::ffff:0.0.0.0/any/5.6.7.8      -A FORWARD -d 5.6.7.8/32 -j DROP
    PUT  /drop/forward/any/::ffff:1.2.3.4/any/5.6.7.8      -A FORWARD -s 1.2.3.4/32 -d 5.6.7.8/32 -j DROP
    PUT  /drop/forward/any/::/any/2001:db8::1              -A FORWARD -d 2001:db8::1/128 -j DROP
    PUT  /drop/forward/any/2001:db8::1/any/::              -A FORWARD -s 2001:db8::1/128 -j DROP
    PUT  /drop/forward/any/2001:db8::1/any/2001:db8::2     -A FORWARD -s 2001:db8::1/128 -d 2001:db8::2/128 -j DROP
    PUT  /drop/forward/a/2001:db8::/32/b/fd11::/16         -A FORWARD -s 2001:db8::/32 -d fd11::/16 -i a+ -o b+ -j DROP

    PUT  /DROP/INPUT/any/1.2.3.4                           -A INPUT -s 1.2.3.4/32 -j DROP
    PUT  /Accept/Forward/ETH0/1.2.3.4/Eth/5.6.7.8          -A FORWARD -s 1.2.3.4/32 -d 5.6.7.8/32 -i ETH0 -o Eth+ -j ACCEPT
    PUT  /drop/input/any/1.2.3.4/                          -A INPUT -s 1.2.3.4/32 -j DROP
    PUT  /drop/input/any/1.2.3.4/24/                       -A INPUT -s 1.2.3.0/24 -j DROP
    PUT  /drop/forward/any/1.2.3.4/eth1/                   -A FORWARD -s 1.2.3.4/32 -o eth1 -j DROP
    PUT  /%64rop/in%70ut/%65th%30/1%2e2%2E3.4              -A INPUT -s 1.2.3.4/32 -i eth0 -j DROP
    PUT  /drop/input/any/2001%3adb8%3A%3a1/%36%34          -A INPUT -s 2001:db8::/64 -j DROP
    PUT  /drop/input/eth0%3A1/1.2.3.4                      -A INPUT -s 1.2.3.4/32 -i eth0:1 -j DROP
    PUT  /drop/input/any/1.2.3.4?                          -A INPUT -s 1.2.3.4/32 -j DROP
    PUT  /drop/input/any/1.2.3.4/?expire=600               -A INPUT -s 1.2.3.4/32 -j DROP
    PUT  /drop/input/any/1.2.3.4?wait=true&expire=2h       -A INPUT -s 1.2.3.4/32 -j DROP
    PUT  /drop/input/any/1.2.3.4?expire=0&wait=TRUE        -A INPUT -s 1.2.3.4/32 -j DROP
    PUT  /drop/input/any/1.2.3.4?%65xpire=%31%30           -A INPUT -s 1.2.3.4/32 -j DROP
    PUT  /drop/input/any/1.2.3.4?expire=36500d             -A INPUT -s 1.2.3.4/32 -j DROP
    POST /drop/input/eth0/11.22.33.44                      -A INPUT -s 11.22.33.44/32 -i eth0 -j DROP
    POST /reject/input/any/2001:db8::/48?expire=1m         -A INPUT -s 2001:db8::/48 -j REJECT --reject-with icmp6-port-unreachable
    POST /accept/forward/any/0.0.0.0/eth0/5.5.5.5          -A FORWARD -d 5.5.5.5/32 -o eth0 -j ACCEPT
";

/// Requests that are refused: the status, and a part of the error.
const REFUSED: &str = r#"
    400 PUT    /block/input/any/1.2.3.4                    "block" is not an action: expected drop, accept, reject or list
    400 PUT    /dropp/input/any/1.2.3.4                    "dropp"
    400 GET    /lists                                      "lists" is not an action
    400 PUT    /drop                                       expected a chain
    400 PUT    /drop/                                      expected a chain
    400 PUT    /drop/prerouting/any/1.2.3.4                "prerouting" is not a chain: expected input, output or forward
    400 PUT    /drop/input                                 expected an interface
    400 PUT    /drop/input/any                             expected one in the path, or a body
    400 PUT    /drop/input/1.2.3.4                         is not an interface
    400 PUT    /drop/input/eth+/1.2.3.4                    "eth+" is not an interface
    400 PUT    /drop/input/ANY/1.2.3.4                     "ANY" is not an interface
    400 PUT    /drop/input/Any/1.2.3.4                     "Any" is not an interface
    400 PUT    /drop/input/-i/1.2.3.4                      "-i" is not an interface
    400 PUT    /drop/input/./1.2.3.4                       "." is not an interface
    400 PUT    /drop/input/../1.2.3.4                      ".." is not an interface
    400 PUT    /drop/input/abcdefghijklmnop/1.2.3.4        "abcdefghijklmnop" is not an interface: expected "any" or 1 to 15
    400 PUT    /drop/input/abcdefghijklmno0/1.2.3.4        "abcdefghijklmno0" is not an interface
    400 PUT    /drop/input/eth!0/1.2.3.4                   "eth!0" is not an interface
    400 PUT    /drop/input/eth%200/1.2.3.4                 "eth 0" is not an interface
    400 PUT    /drop/input/eth%2F0/1.2.3.4                 "eth/0" is not an interface
    400 PUT    /drop/input/eth%000/1.2.3.4                 is not an interface
    400 PUT    /drop/input/%c3%a9th0/1.2.3.4               "éth0" is not an interface
    400 PUT    /drop/input/eth0%0a-A/1.2.3.4               is not an interface
    400 PUT    /drop/input/eth0%22/1.2.3.4                 is not an interface
    400 PUT    /drop/input/any/1.2.3                       "1.2.3" is not an IPv4 or IPv6 address
    400 PUT    /drop/input/any/1.2.3.256                   "1.2.3.256" is not an IPv4 or IPv6 address
    400 PUT    /drop/input/any/01.2.3.4                    "01.2.3.4" is not an IPv4 or IPv6 address
    400 PUT    /drop/input/any/0x1020304                   "0x1020304" is not an IPv4 or IPv6 address
    400 PUT    /drop/input/any/16909060                    "16909060" is not an IPv4 or IPv6 address
    400 PUT    /drop/input/any/host.example                "host.example" is not an IPv4 or IPv6 address
    400 PUT    /drop/input/any/2001:db8:::1                "2001:db8:::1" is not an IPv4 or IPv6 address
    400 PUT    /drop/input/any/fe80::1%25eth0              "fe80::1%eth0" is not an IPv4 or IPv6 address
    400 PUT    /drop/input/any/1.2.3.0%2F24                "1.2.3.0/24" is not an IPv4 or IPv6 address
    400 PUT    /drop/input/any/!1.2.3.4                    "!1.2.3.4" is not an IPv4 or IPv6 address
    400 PUT    /drop/input/any/1.2.3.4,5.6.7.8             "1.2.3.4,5.6.7.8" is not an IPv4 or IPv6 address
    400 PUT    /drop/input/any/1.2.3.4%20-j%20ACCEPT       "1.2.3.4 -j ACCEPT" is not an IPv4 or IPv6 address
    400 PUT    /drop/input/any/1.2.3.4%0aCOMMIT            "1.2.3.4\nCOMMIT" is not an IPv4 or IPv6 address
    400 PUT    /drop/input/any/1.2.3.4/8                   expected 9 to 32 for IPv4
    400 PUT    /drop/input/any/1.2.3.4/0                   expected 9 to 32 for IPv4
    400 PUT    /drop/input/any/0.0.0.0/0                   expected 9 to 32 for IPv4
    400 PUT    /drop/input/any/1.2.3.4/33                  "33" is not a mask of IPv4: expected a number up to 32
    400 PUT    /drop/input/any/1.2.3.4/024                 "024" is not a mask of IPv4
    400 PUT    /drop/input/any/1.2.3.4/99999999999         "99999999999" is not a mask of IPv4
    400 PUT    /drop/input/any/1.2.3.4/-9                  "-9"
    400 PUT    /drop/input/any/1.2.3.4/255.255.255.0       "255.255.255.0" is too much
    400 PUT    /drop/input/any/2001:db8::/15               expected 16 to 128 for IPv6
    400 PUT    /drop/input/any/::/0                        expected 16 to 128 for IPv6
    400 PUT    /drop/input/any/2001:db8::/129              "129" is not a mask of IPv6: expected a number up to 128
    400 PUT    /drop/input/any/::ffff:1.2.3.4/104          expected 9 to 32 for IPv4
    400 PUT    /drop/input/any/::ffff:1.2.3.4/64           mask 64 is too wide for an IPv4-mapped address
    400 PUT    /drop/input/any/0.0.0.0                     0.0.0.0 means any address
    400 PUT    /drop/input/any/0.0.0.0/32                  0.0.0.0 means any address
    400 PUT    /drop/input/any/::                          :: means any address
    400 PUT    /drop/input/any/::ffff:0.0.0.0              0.0.0.0 means any address
    400 PUT    /drop/output/any/0.0.0.0                    0.0.0.0 means any address
    400 DELETE /drop/output/any/::                         :: means any address
    400 PUT    /drop/input/any/1.2.3.4/24/24               "24" is too much: expected the end of the path
    400 PUT    /drop/input/any/1.2.3.4/eth0                "eth0" is too much
    400 PUT    /drop/output/any/1.2.3.4/any/5.6.7.8        "any" is too much
    400 PUT    /drop/forward                               expected an interface
    400 PUT    /drop/forward/any                           expected one in the path, or a body
    400 PUT    /drop/forward/any/0.0.0.0                   expected an address on one side
    400 PUT    /drop/forward/any/0.0.0.0/any/0.0.0.0       expected an address on one side
    400 PUT    /drop/forward/eth0/::/eth1/::               expected an address on one side
    400 PUT    /drop/forward/any/::/eth1                   expected an address on one side
    400 PUT    /drop/forward/any/0.0.0.0/0/any/1.2.3.4     expected 9 to 32 for IPv4
    400 PUT    /drop/forward/any/1.2.3.4/any/5.6.7.8/8     expected 9 to 32 for IPv4
    400 PUT    /drop/forward/any/1.2.3.4/any/::1           expected one family
    400 PUT    /drop/forward/any/0.0.0.0/any/2001:db8::1   expected one family
    400 PUT    /drop/forward/any/::/any/1.2.3.4            expected one family
    400 PUT    /drop/forward/any/1.2.3.4/any/5.6.7.8/9/x   "x" is too much
    400 PUT    /drop/input/any/1.2.3.4//                   has an empty part
    400 PUT    //drop/input/any/1.2.3.4                    has an empty part
    400 PUT    /drop//any/1.2.3.4                          has an empty part
    400 PUT    /drop/input/any/1.2.3.4%                    "1.2.3.4%" is not percent-encoded
    400 PUT    /drop/input/any/1.2.3.4%2                   "1.2.3.4%2" is not percent-encoded
    400 PUT    /drop/input/any/%zz                         "%zz" is not percent-encoded
    400 PUT    /drop/input/%ff/1.2.3.4                     "%ff" is not percent-encoded UTF-8
    400 PUT    /drop/input/any/1.2.3.4?expires=30          unknown parameter "expires": expected expire, wait
    400 PUT    /drop/input/any/1.2.3.4?Expire=30           unknown parameter "Expire"
    400 PUT    /drop/input/any/1.2.3.4?expire=1&expire=2   the parameter "expire" is given twice
    400 PUT    /drop/input/any/1.2.3.4?expire=1&expire=1   the parameter "expire" is given twice
    400 PUT    /drop/input/any/1.2.3.4?modify=insert       unknown parameter "modify"
    400 PUT    /drop/input/any/1.2.3.4?expire=             "" is not a time span
    400 PUT    /drop/input/any/1.2.3.4?expire              "" is not a time span
    400 PUT    /drop/input/any/1.2.3.4?expire=-1           "-1" is not a time span
    400 PUT    /drop/input/any/1.2.3.4?expire=1w           "1w" is not a time span
    400 PUT    /drop/input/any/1.2.3.4?expire=1.5h         "1.5h" is not a time span
    400 PUT    /drop/input/any/1.2.3.4?expire=10M          "10M" is not a time span
    400 PUT    /drop/input/any/1.2.3.4?expire=36501d       "36501d" is not a time span
    400 PUT    /drop/input/any/1.2.3.4?wait=false          wait: "false" is wrong: expected true
    400 PUT    /drop/input/any/1.2.3.4?wait                wait: "" is wrong
    400 PUT    /drop/input/any/1.2.3.4?expire=1&          unknown parameter ""
    400 DELETE /drop/input/any/1.2.3.4?force=true          unknown parameter "force"
    400 DELETE /drop/input/any/1.2.3.4/8                   expected 9 to 32 for IPv4
    400 GET    /?x=1                                       unknown parameter "x": expected none
    400 GET    /list?expire=1                              unknown parameter "expire": expected address
    400 GET    /list/nat                                   "nat" is not a chain
    400 GET    /list/input/eth+                            "eth+" is not an interface
    400 GET    /list/input/eth0/1.2.3.4                    "1.2.3.4" is too much
    405 GET    /drop/input/any/1.2.3.4                     takes PUT, POST, DELETE only
    405 GET    /drop/input/any/1.2.3.4?modify=insert       takes PUT, POST, DELETE only
    405 PATCH  /drop/input/any/1.2.3.4                     takes PUT, POST, DELETE only
    405 OPTIONS /drop/input/any/1.2.3.4                    takes PUT, POST, DELETE only
    405 TRACE  /list                                       takes GET, HEAD only
    405 BREW   /drop/input/any/1.2.3.4                     takes PUT, POST, DELETE only
    405 put    /drop/input/any/1.2.3.4                     takes PUT, POST, DELETE only
    405 PUT    /                                           takes GET, HEAD only
    405 DELETE /                                           takes GET, HEAD only
    405 PUT    /list                                       takes GET, HEAD only
    405 POST   /list/input                                 takes GET, HEAD only
    405 DELETE /list/input/eth0                            takes GET, HEAD only
"#;

/// Spellings of one rule each.
const ALIKE: &str = "
    /drop/input/any/44.55.66.77/24        /DROP/Input/any/44.55.66.0/24         /drop/input/any/::ffff:44.55.66.1/120/
    /drop/input/any/1.2.3.4               /drop/input/any/1.2.3.4/32            /drop/input/any/::ffff:102:304/128
    /drop/output/eth/2001:DB8::1          /drop/output/eth/2001:db8:0:0::1/128  /%64rop/output/e%74h/2001:db8::0:1
    /accept/forward/a/1.2.3.4             /accept/forward/a/1.2.3.4/any         /accept/forward/a/1.2.3.4/32/any/0.0.0.0
    /reject/forward/any/0.0.0.0/b/5.5.5.5 /REJECT/FORWARD/any/0.0.0.0/b/5.5.5.5 /reject/forward/any/::ffff:0.0.0.0/b/5.5.5.5/32
";

/// A connection to the local server that is kept open, for many requests.
struct Line {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Line {
    fn to(rfw: &Rfw<'_>) -> Line {
        let script = "exec 3<>/dev/tcp/127.0.0.1/7390; cat <&0 >&3 & exec cat <&3";
        let mut bash = rfw.host.command("bash");
        let bash = bash.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = bash.spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Line { child, stdin, stdout: BufReader::new(stdout) }
    }

    #[track_caller]
    fn request(&mut self, method: &str, path: &str) -> Reply {
        write!(self.stdin, "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").unwrap();
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(self.stdout.read_line(&mut head).unwrap(), 0, "{method} {path}: {head}");
        }
        let mut reply = Reply::parse(&head);
        reply.body = match reply.header("Content-Length") {
            Some(length) => self.take(length.parse().unwrap()),
            None => self.take_chunks(),
        };
        reply
    }

    fn take(&mut self, length: usize) -> String {
        let mut bytes = vec![0; length];
        self.stdout.read_exact(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    fn take_chunks(&mut self) -> String {
        let mut body = String::new();
        loop {
            let mut size = String::new();
            self.stdout.read_line(&mut size).unwrap();
            let size = usize::from_str_radix(size.trim_end(), 16).expect("the size of a chunk");
            body += &self.take(size);
            assert_eq!(self.take(2), "\r\n");
            if size == 0 {
                return body;
            }
        }
    }

    /// The result of a change.
    #[track_caller]
    fn result(&mut self, method: &str, path: &str) -> String {
        let reply = self.request(method, path);
        assert_eq!(reply.status, 200, "{method} {path}: {reply:#?}");
        reply.json()["result"].as_str().unwrap().to_owned()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines of a golden table.
fn rows(table: &str) -> impl Iterator<Item = &str> {
    table.lines().map(str::trim).filter(|line| !line.is_empty())
}

/// The words of a row up to the last column, and the last column.
fn columns<const N: usize>(row: &str) -> ([&str; N], &str) {
    let mut rest = row;
    let words = std::array::from_fn(|_| {
        let (word, after) = rest.split_once(' ').unwrap();
        rest = after.trim_start();
        word
    });
    (words, rest)
}

/// The kernel's line without the comment that carries the lease.
fn without_comment(rule: &str) -> String {
    let (before, rest) = rule.split_once(" -m comment --comment \"").unwrap_or((rule, "\""));
    let (_, after) = rest.split_once('"').unwrap_or(("", ""));
    format!("{before}{after}")
}

/// Both tables, with comments left out.
fn bare_tables(host: &Host, iptables: &str) -> [Vec<String>; 2] {
    host.tables(iptables).map(|table| table.iter().map(|rule| without_comment(rule)).collect())
}

/// The tables with one more rule at the head of its chain.
fn with_head(tables: &[Vec<String>; 2], rule: &str) -> [Vec<String>; 2] {
    let rank = |line: &str| ["-A INPUT", "-A FORWARD", "-A OUTPUT"].iter().position(|c| line.starts_with(c));
    let mut tables = tables.clone();
    let table = &mut tables[usize::from(rule.contains("::"))];
    let at = table.iter().position(|line| rank(line) >= rank(rule)).unwrap_or(table.len());
    table.insert(at, rule.to_owned());
    tables
}

/// The command of the family that a path or rule is of.
fn command_for(iptables: &str, text: &str) -> String {
    if text.contains("2001:") { of_ipv6(iptables) } else { iptables.to_owned() }
}

/// The texts under a key, row by row.
pub fn strings<'a>(value: &'a Value, key: &str) -> Vec<&'a str> {
    value.as_array().unwrap().iter().map(|row| row[key].as_str().unwrap()).collect()
}

#[test]
fn a_put_makes_its_one_rule_at_the_head_and_a_delete_takes_it_away() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).white_list("127.0.0.1\nfd00::1\n").start();
        let mut line = Line::to(&rfw);
        let before = bare_tables(&host, iptables);
        for row in rows(MADE) {
            let ([method, path], rule) = columns(row);
            assert_eq!(line.result(method, path), "inserted", "{row}");
            assert_eq!(bare_tables(&host, iptables), with_head(&before, rule), "{iptables}: {row}");
            let path = path.split('?').next().unwrap();
            assert_eq!(line.result("DELETE", path), "deleted", "{row}");
            assert_eq!(bare_tables(&host, iptables), before, "{iptables}: {row}");
        }
    });
}

#[test]
fn with_the_option_ipset_the_same_requests_keep_the_same() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).white_list("127.0.0.1\nfd00::1\n").configure("ipset").start();
        let mut line = Line::to(&rfw);
        for row in rows(MADE) {
            let ([method, path], rule) = columns(row);
            if path.contains("36500d") {
                let error = line.request(method, path);
                assert!(error.status == 400 && error.body.contains("2147483 seconds"), "{row}: {error:?}");
                continue;
            }
            assert_eq!(line.result(method, path), "inserted", "{row}");
            assert_eq!(host.kept(iptables), [rule], "{iptables}: {row}");
            let is_pair = rule.contains(" -s ") && rule.contains(" -d ");
            assert!(is_pair || host.entries().len() == 1, "{iptables}: {row}");
            let answer = line.request("GET", "/list");
            let list = answer.json();
            assert_eq!(list.as_array().unwrap().len(), 1, "{row}: {list}");
            assert_eq!(as_rule(&list[0]), rule, "{iptables}: {row}");
            let expected = if path.contains("expire=0") { "unchanged" } else { "refreshed" };
            assert_eq!(line.result("PUT", &permanent(path)), expected, "{row}");
            assert_eq!(line.result("PUT", &permanent(path)), "unchanged", "{row}");
            let path = path.split('?').next().unwrap();
            assert_eq!(line.result("DELETE", path), "deleted", "{row}");
            assert_eq!(line.result("DELETE", path), "absent", "{row}");
            assert_eq!(host.kept(iptables), Vec::<String>::new(), "{iptables}: {row}");
        }
    });
}

/// The path with a lease for ever.
fn permanent(path: &str) -> String {
    format!("{}?expire=0", path.split('?').next().unwrap())
}

/// A row of a list as the line of `iptables -S` that it stands for.
fn as_rule(row: &Value) -> String {
    let text = |key: &str| row[key].as_str().unwrap();
    let masked = |address: &str| match address {
        _ if address.contains('/') => address.to_owned(),
        _ if address.contains(':') => format!("{address}/128"),
        _ => format!("{address}/32"),
    };
    let mut rule = format!("-A {}", text("chain"));
    for (flag, key) in [("-s", "source"), ("-d", "destination"), ("-i", "inp"), ("-o", "out")] {
        match text(key) {
            "*" | "0.0.0.0/0" | "::/0" => {}
            value if key.len() > 3 => rule += &format!(" {flag} {}", masked(value)),
            value => rule += &format!(" {flag} {value}"),
        }
    }
    let reject =
        text("extra").find("reject-with").map_or(String::new(), |at| format!(" --{}", &text("extra")[at..]));
    // The kernel's tools print an address of ::/96 with dots.
    let rule = rule.replace("::102:304/", "::1.2.3.4/");
    format!("{rule} -j {}{reject}", text("target"))
}

#[test]
fn a_refused_request_quotes_what_is_wrong_and_changes_nothing() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).start();
        rfw.ok("PUT", "/drop/input/any/1.2.3.4");
        rfw.ok("PUT", "/drop/input/any/2001:db8::1");
        let mut line = Line::to(&rfw);
        let before = host.tables(iptables);
        for row in rows(REFUSED) {
            let ([status, method, path], part) = columns(row);
            let reply = line.request(method, path);
            assert_eq!(reply.status.to_string(), status, "{row}: {reply:#?}");
            let error = reply.json()["error"].as_str().unwrap().to_owned();
            assert!(error.contains(part), "{row}: {error}");
        }
        for (method, path, allow) in [
            ("PUT", "/list", "GET, HEAD"),
            ("GET", "/drop/input/any/1.2.3.4", "PUT, POST, DELETE"),
            ("PATCH", "/", "GET, HEAD"),
        ] {
            assert_eq!(rfw.request(method, path).header("Allow"), Some(allow), "{method} {path}");
        }
        assert_eq!(rfw.request("HEAD", "/drop/input/any/9.9.9.9").status, 405);
        assert_eq!(host.tables(iptables), before, "{iptables}");
    });
}

#[test]
fn two_spellings_of_a_rule_are_one_rule() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).start();
        for row in rows(ALIKE) {
            let ([first, second], third) = columns(row);
            assert_eq!(rfw.ok("PUT", first)["result"], "inserted", "{row}");
            let after = bare_tables(&host, iptables);
            for path in [second, third] {
                assert_eq!(rfw.ok("PUT", path)["result"], "refreshed", "{path}");
                assert_eq!(bare_tables(&host, iptables), after, "{iptables}: {path}");
            }
            assert_eq!(rfw.ok("DELETE", third)["result"], "deleted", "{row}");
            assert_eq!(rfw.ok("DELETE", first)["result"], "absent", "{row}");
        }
        assert_eq!(rfw.ok("GET", "/list"), serde_json::json!([]));
    });
}

#[test]
fn a_get_changes_rules_only_where_non_restful_is_on() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).configure("non.restful").start();
        let path = "/drop/input/eth0/11.22.33.44";
        assert_eq!(rfw.ok("GET", &format!("{path}?modify=insert&expire=0"))["result"], "inserted");
        let rule = "-A INPUT -s 11.22.33.44/32 -i eth0 -m comment --comment \"rfw permanent\" -j DROP";
        assert_eq!(host.rules(iptables, "INPUT"), [rule]);
        let refused = [
            ("GET", "", "modify: \"\" is wrong: expected insert or delete"),
            ("GET", "?modify=remove", "modify: \"remove\" is wrong"),
            ("GET", "?modify=", "modify: \"\" is wrong"),
            ("PUT", "?modify=insert", "goes with GET only"),
            ("DELETE", "?modify=delete", "goes with GET only"),
            ("GET", "?modify=delete&modify=insert", "given twice"),
        ];
        for (method, query, part) in refused {
            let error = rfw.refused(method, &format!("{path}{query}"), 400);
            assert!(error.contains(part), "{method} {query}: {error}");
        }
        assert_eq!(host.rules(iptables, "INPUT"), [rule]);
        assert_eq!(rfw.ok("GET", &format!("{path}?modify=delete"))["result"], "deleted");
        assert_eq!(rfw.ok("GET", &format!("{path}?modify=delete"))["result"], "absent");
        assert_eq!(host.rules(iptables, "INPUT"), Vec::<String>::new());
    });
}

#[test]
fn an_answer_has_the_result_the_rule_and_its_expiry() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).start();
        let path = "/reject/forward/ppp/1.2.3.4/24/eth0/5.5.5.5";
        let rule = serde_json::json!({
            "chain": "FORWARD", "target": "REJECT", "inp": "ppp+", "out": "eth0",
            "source": "1.2.3.0/24", "destination": "5.5.5.5",
        });
        let put = rfw.ok("PUT", &format!("{path}?expire=10m"));
        assert_eq!((&put["result"], &put["rule"]), (&"inserted".into(), &rule));
        let comment = format!("--comment \"rfw until {}\"", put["expires"].as_str().unwrap());
        let lines = host.rules(iptables, "FORWARD");
        assert!(lines.len() == 1 && lines[0].contains(&comment), "{comment}: {lines:?}");
        for (method, query, result) in
            [("POST", "?expire=0", "refreshed"), ("DELETE", "", "deleted"), ("DELETE", "", "absent")]
        {
            let answer = rfw.ok(method, &format!("{path}{query}"));
            let expected = serde_json::json!({ "result": result, "rule": rule, "expires": null });
            assert_eq!(answer, expected, "{method}");
        }
        let put = rfw.ok("PUT", "/drop/output/any/2001:db8::1?expire=0");
        let rule = serde_json::json!({
            "chain": "OUTPUT", "target": "DROP", "inp": "*", "out": "*",
            "source": "::/0", "destination": "2001:db8::1",
        });
        assert_eq!(put, serde_json::json!({ "result": "inserted", "rule": rule, "expires": null }));
    });
}

#[test]
fn a_put_goes_before_the_rules_of_others() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).start();
        for (chain, path) in [
            ("INPUT", "/accept/input/any/1.2.3.4"),
            ("OUTPUT", "/accept/output/any/1.2.3.4"),
            ("FORWARD", "/accept/forward/any/1.2.3.4"),
            ("INPUT", "/accept/input/any/2001:db8::4"),
            ("FORWARD", "/accept/forward/any/2001:db8::4"),
        ] {
            let command = command_for(iptables, path);
            host.admin(&command, &format!("-I {chain} -p udp -j DROP"));
            host.admin(&command, &format!("-A {chain} -p icmp -j DROP"));
            let chain_of = || host.run(&command, &["-w", "-S", chain]).ok();
            let before = chain_of();
            // The first is put in, the second renews what is no longer first.
            for result in ["inserted", "refreshed"] {
                assert_eq!(rfw.ok("PUT", path)["result"], result, "{path}");
                let after = chain_of();
                let rules: Vec<&str> = after.lines().filter(|line| line.starts_with("-A")).collect();
                assert!(rules[0].contains("rfw until") && rules[0].ends_with("-j ACCEPT"), "{after}");
                let others: Vec<&str> = after.lines().filter(|line| !line.contains("rfw until")).collect();
                assert_eq!(others, before.lines().collect::<Vec<_>>(), "{iptables}: {path}");
                host.admin(&command, &format!("-I {chain} -p tcp -j DROP"));
                host.admin(&command, &format!("-D {chain} -p tcp -j DROP"));
            }
        }
    });
}

#[test]
fn a_put_of_what_is_there_renews_it_and_makes_no_second_copy() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let rfw = host.rfw(iptables).start();
        for path in ["/drop/input/eth/1.2.3.0/24", "/reject/forward/any/2001:db8::1/any/2001:db8::2"] {
            let command = command_for(iptables, path);
            let chain = if path.contains("input") { "INPUT" } else { "FORWARD" };
            let golden = [
                ("?expire=600", "inserted"),
                ("?expire=600", "refreshed"),
                ("?expire=300", "refreshed"),
                ("?expire=900", "refreshed"),
                ("", "refreshed"),
                ("?expire=0", "refreshed"),
                ("?expire=0", "unchanged"),
                ("?expire=0h&wait=true", "unchanged"),
                ("?expire=600", "refreshed"),
            ];
            for (query, result) in golden {
                let answer = rfw.ok("PUT", &format!("{path}{query}"));
                assert_eq!(answer["result"], result, "{path}{query}");
                let comment = match answer["expires"].as_str() {
                    Some(moment) => format!("\"rfw until {moment}\""),
                    None => "\"rfw permanent\"".to_owned(),
                };
                let rules = host.rules(&command, chain);
                assert!(rules.len() == 1 && rules[0].contains(&comment), "{path}{query}: {rules:?}");
                let list = rfw.ok("GET", &format!("/list/{chain}"));
                let rows: Vec<&Value> = list.as_array().unwrap().iter().collect();
                assert!(rows.len() == 1 && rows[0]["expires"] == answer["expires"], "{list}");
            }
            rfw.ok("DELETE", path);
        }
    });
}

/// What an admin puts in beside a rule of ours for 1.2.3.4.
const FOREIGN: &str = "
    -A INPUT -s 1.2.3.4 -j DROP
    -A INPUT -s 1.2.3.4 -m comment --comment 'rfw' -j DROP
    -A INPUT -s 1.2.3.4 -m comment --comment 'rfw is great' -j DROP
    -A INPUT -s 1.2.3.4 -m comment --comment 'rfw Permanent' -j DROP
    -A INPUT -s 1.2.3.4 -m comment --comment 'rfw permanent ' -j DROP
    -A INPUT -s 1.2.3.4 -m comment --comment 'not rfw permanent' -j DROP
    -A INPUT -s 1.2.3.4 -m comment --comment 'rfw until tomorrow' -j DROP
    -A INPUT -s 1.2.3.4 -m comment --comment 'rfw until 2001-01-01T00:00:00' -j DROP
    -A INPUT -s 1.2.3.4 -m comment --comment 'my rfw until 2001-01-01T00:00:00Z' -j DROP
    -A INPUT -s 1.2.3.4 -m comment --comment 'rfw guards' -j DROP
    -A INPUT -s 1.2.3.4 -p tcp -m comment --comment 'rfw permanent' -j DROP
    -A INPUT -s 1.2.3.4 -p tcp -m comment --comment 'rfw until 2001-01-01T00:00:00Z' -j DROP
    -A INPUT ! -s 1.2.3.4 -m comment --comment 'rfw until 2001-01-01T00:00:00Z' -j ACCEPT
    -A INPUT -s 1.2.3.4 ! -i eth0 -m comment --comment 'rfw until 2001-01-01T00:00:00Z' -j DROP
    -A INPUT -s 1.2.3.4 -d 5.6.7.8 -m comment --comment 'rfw until 2001-01-01T00:00:00Z' -j DROP
    -A INPUT -d 1.2.3.4 -m comment --comment 'rfw until 2001-01-01T00:00:00Z' -j DROP
    -A INPUT -s 1.0.0.0/8 -m comment --comment 'rfw until 2001-01-01T00:00:00Z' -j ACCEPT
    -A INPUT -s 1.2.3.4 -i eth0+ -m comment --comment 'rfw until 2001-01-01T00:00:00Z' -j DROP
    -A INPUT -s 1.2.3.4 -m comment --comment 'rfw until 2001-01-01T00:00:00Z' -j REJECT --reject-with icmp-host-prohibited
    -A INPUT -s 1.2.3.4 -m comment --comment 'rfw until 2001-01-01T00:00:00Z'
    -A INPUT -s 1.2.3.4 -m comment --comment 'rfw until 2001-01-01T00:00:00Z' -j OTHERS
    -A INPUT -s 1.2.3.4 -m comment --comment 'rfw until 2001-01-01T00:00:00Z' -m conntrack --ctstate NEW -j DROP
    -A INPUT -s 1.2.3.4 -m comment --comment 'rfw until 2001-01-01T00:00:00Z' -m comment --comment 'two' -j DROP
    -A OTHERS -s 1.2.3.4 -m comment --comment 'rfw until 2001-01-01T00:00:00Z' -j DROP
    -A OTHERS -s 127.0.0.1 -m comment --comment 'rfw permanent' -j DROP
";

/// Makes the rules of others and gives the tables as they then are.
fn make_foreign(host: &Host, iptables: &str) -> [Vec<String>; 2] {
    host.admin(iptables, "-N OTHERS");
    rows(FOREIGN).for_each(|line| host.admin(iptables, line));
    host.tables(iptables)
}

#[test]
fn rules_of_others_that_look_alike_are_left_alone() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let foreign = make_foreign(&host, iptables);
        assert_eq!(foreign[0].len(), rows(FOREIGN).count());
        // What is not theirs and does not guard the port is ours.
        let split = || {
            let [table, _] = host.tables(iptables);
            let (theirs, ours): (Vec<_>, Vec<_>) = table.into_iter().partition(|l| foreign[0].contains(l));
            assert_eq!(theirs, foreign[0], "{iptables}");
            ours.into_iter().filter(|line| !line.contains("\"rfw guard\"")).collect::<Vec<_>>()
        };
        let mut rfw = host.rfw(iptables).start();
        assert_eq!(split(), Vec::<String>::new());
        assert_eq!(rfw.ok("GET", "/list"), serde_json::json!([]));
        let path = "/drop/input/any/1.2.3.4";
        assert_eq!(rfw.ok("DELETE", path)["result"], "absent");
        for (query, result) in [("?expire=60", "inserted"), ("", "refreshed"), ("?expire=0", "refreshed")] {
            assert_eq!(rfw.ok("PUT", &format!("{path}{query}"))["result"], result);
            assert_eq!(split().len(), 1, "{query}");
            assert_eq!(strings(&rfw.ok("GET", "/list"), "num"), ["1"]);
        }
        assert_eq!(rfw.ok("DELETE", path)["result"], "deleted");
        assert_eq!(rfw.ok("DELETE", path)["result"], "absent");
        assert_eq!(split(), Vec::<String>::new());
        rfw.stop();
        rfw.call(&["--flush"]).ok();
        assert_eq!(host.tables(iptables), foreign, "{iptables}: after --flush");
    });
}
