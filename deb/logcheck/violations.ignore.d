^([[:alpha:]]{3} [ :[:digit:]]{11}|[0-9T:.+-]{32}) [._[:alnum:]-]+ postgrey(\[[[:digit:]]+\])?: ([[:alnum:]]+: )?action=(greylist|pass|tarpit), reason=.+$
^([[:alpha:]]{3} [ :[:digit:]]{11}|[0-9T:.+-]{32}) [._[:alnum:]-]+ postfix/(submission/)?smtpd(\[[[:digit:]]+\])?: (NOQUEUE|[[:alnum:]]+): reject: (RCPT|DATA) from .+: 450 4\.2\.0 <.+>: (Recipient address|Data command) rejected: Greylisted, .+$
