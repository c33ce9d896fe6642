package proc

import (
	"regexp"
	"strings"
)

// Mask stands where a secret was.
const Mask = "***"

// secretWord is in the names of options, variables and parameters that carry
// secrets.
const secretWord = `pass|pwd|secret|token|key|cred|auth|signature`

var (
	secretName  = regexp.MustCompile(`(?i)` + secretWord)
	secretFlag  = regexp.MustCompile(`(?i)^--?[a-z0-9_.-]*(` + secretWord + `)[a-z0-9_.-]*$`)
	secretValue = regexp.MustCompile(`(?i)([a-z0-9_.-]*(?:` + secretWord + `)[a-z0-9_.-]*["']?\s*[=:]\s*)(?:(bearer|basic|digest|token)\s+)?("[^"]*"|'[^']*'|[^\s&;,"']+)`)
	assignment  = regexp.MustCompile(`(?i)^((?:--?)?[a-z0-9_.-]*(?:` + secretWord + `)[a-z0-9_.-]*=).+$`)
	spacedFlag  = regexp.MustCompile(`(?i)(\s--?[a-z0-9_.-]*(?:` + secretWord + `)[a-z0-9_.-]*\s+)([^\s-]\S*)`)
	urlUser     = regexp.MustCompile(`([a-zA-Z][a-zA-Z0-9+.-]*://)([^/\s@:]*)(:?)([^/\s]*)@`)
)

// MaskArgs copies a command line with its secrets replaced by Mask: the values
// of options, variables and URL parameters whose names hold pass, secret,
// token, key and the like ("--db-password x", "TOKEN=x", "?api_key=x",
// "Authorization: Bearer x"), and the credentials in URLs. It errs on the side
// of masking too much; a secret under a name that says nothing stays.
func MaskArgs(args []string) []string {
	masked := make([]string, len(args))
	for i, arg := range args {
		if i > 0 && secretFlag.MatchString(args[i-1]) && !strings.HasPrefix(arg, "--") {
			masked[i] = Mask
			continue
		}
		// The whole rest of the argument is the value, whatever is in it.
		masked[i] = MaskText(assignment.ReplaceAllString(arg, "${1}"+Mask))
	}
	return masked
}

// MaskText replaces the secrets in a piece of text, such as one argument or a
// log line, as MaskArgs does.
func MaskText(text string) string {
	if strings.Contains(text, "://") {
		text = urlUser.ReplaceAllStringFunc(text, maskUser)
	}
	if !secretName.MatchString(text) {
		return text
	}
	text = secretValue.ReplaceAllString(text, "${1}"+Mask)
	return spacedFlag.ReplaceAllString(text, "${1}"+Mask)
}

// maskUser keeps the user of "scheme://user:password@"; a user alone is often a
// token, so it goes.
func maskUser(s string) string {
	m := urlUser.FindStringSubmatch(s)
	if m[3] == "" {
		return m[1] + Mask + "@"
	}
	return m[1] + m[2] + ":" + Mask + "@"
}
